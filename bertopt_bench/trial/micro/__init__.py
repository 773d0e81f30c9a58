"""Operations measured alone: buffers, calls, checks against float64, batches that are timed.

    case = open_case("attention", "flash", options, device)   # buffers, and a check of the result
    timer = open_timer(case, device)                          # batches of calls, a millisecond or more
    measured = measure(timer, batches)                        # seconds a call, batch by batch

pytest-benchmark's suites (``benchmarks/micro``) and the arms of ``duel --micro`` both stand on it.
"""
