"""Operations measured alone: buffers, calls, checks against float64, batches that are timed.

    case = open_case("attention", "flash", options, device)   buffers, and a check of the result
    bench = Bench(case, device)                               calls that make a batch
    bench.batch()                                             seconds of a batch

pytest-benchmark's suites (``benchmarks/micro``) and the arms of ``duel --micro`` both stand on it.
"""
