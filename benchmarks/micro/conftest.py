"""Operations alone under pytest-benchmark: what every suite here shares.

pytest benchmarks/micro --benchmark-json micro.json     # a small selection, three to four minutes
pytest benchmarks/micro -k attention --seq-len 128,512,2048 --padding 0,0.5 --dtype bfloat16
pytest benchmarks/micro/bench_gelu.py --implementation default,my_module:my_gelu --cache hot
bertopt-bench report micro.json

Every option takes a list; each combination is a case. A case is checked against float64 first and
fails where it is wrong. A benchmark's seconds are those of one call, a number a batch: see
``bertopt_bench.trial.micro``. The machine's ceilings are measured before the first case and again
after the last one.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.matrix.keys import Key, Place
from bertopt_bench.matrix.micro import (
    OPERATIONS,
    Operation,
    find_operation,
    impossible,
    read_options,
)
from bertopt_bench.matrix.overrides import toml_value
from bertopt_bench.trial.assemble import build
from bertopt_bench.trial.micro.cases import open_case
from bertopt_bench.trial.micro.measuring import (
    BatchClock,
    Bench,
    ceiling_of,
    complete,
    facts,
    session_ceilings,
    share_of_ceiling,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

sys.path.append(str(Path.cwd()))  # where a user's own module:function may lie

KEYS = sorted({key for operation in OPERATIONS.values() for key in operation.keys})
BATCHES = Key("int", 12, least=1, most=1_000_000)
CLOCK = BatchClock()
MISTAKES = pytest.StashKey[dict[str, str]]()
WARM_BATCHES = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("micro", "operations alone (lists: A,B)")
    group.addoption("--implementation", metavar="A,B", help="built-in names, or module:function")
    group.addoption(
        "--batches", type=int, default=BATCHES.default, help="timed batches a case [12]"
    )
    for key in KEYS:
        group.addoption(_flag(key), dest=f"micro_{key}", metavar="A,B")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a number of batches that times nothing."""
    try:
        BATCHES.read(config.getoption("--batches"), Place("command line", "--batches"))
    except UserError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[MISTAKES] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a case of each combination: the suite's grid, and what the command line puts over it.

    A mistake is kept until all is collected: raised here, each suite would show a traceback.
    """
    if "case" not in metafunc.fixturenames:
        return
    module, cases = metafunc.module, []
    try:
        cases = list(_cases(metafunc.config, module.OPERATION, module.GRID, module.ONE_AT_A_TIME))
    except UserError as error:
        metafunc.config.stash[MISTAKES][module.OPERATION] = str(error)
    metafunc.parametrize("case", [_param(*case) for case in cases])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse what the command line asks for in vain, as text alone: pytest's exit code is 4."""
    modules = [getattr(item, "module", None) for item in session.items]
    chosen = {getattr(module, "OPERATION", None) for module in modules} & OPERATIONS.keys()
    kept = session.config.stash[MISTAKES]
    found = [text for name, text in kept.items() if name in chosen or not chosen]
    if chosen:
        try:
            check_asked(session.config, [OPERATIONS[name] for name in sorted(chosen)])
        except UserError as error:
            found.append(str(error))
    if found:
        raise pytest.UsageError("\n".join(dict.fromkeys(found)))


def check_asked(config: pytest.Config, chosen: Sequence[Operation]) -> None:
    """Check that what was asked for is something to one of the suites that run.

    Raises:
        UserError: an option or an implementation that none of them has.
    """
    names = ", ".join(operation.name for operation in chosen)
    known = {key for operation in chosen for key in operation.keys}
    for key in KEYS:
        if config.getoption(f"micro_{key}") is not None and key not in known:
            having = [one.name for one in OPERATIONS.values() if key in one.keys]
            raise UserError(
                f"{_flag(key)} is no option of {names}; it is one of {', '.join(having)}. Options: "
                f"{', '.join(_flag(one) for one in sorted(known))}.{nearest(key, known)}"
            )
    every = list(dict.fromkeys(name for one in chosen for name in one.implementations))
    for name in _names(config) or ():
        if name not in every and not all(name.partition(":")):
            having = [one.name for one in OPERATIONS.values() if name in one.implementations]
            theirs = f"; it is one of {', '.join(having)}" if having else ""
            called = f", called as {chosen[0].signature}" if len(chosen) == 1 else ""
            raise UserError(
                f"--implementation {name!r} is none of {names}{theirs}. Implementations: "
                f"{', '.join(every)}, or module:function{called}.{nearest(name, every)}"
            )


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _cases(
    config: pytest.Config, name: str, grid: dict[str, tuple[Any, ...]], varied: dict[str, Any]
) -> Any:
    """Give the grid's combinations; where the command line asks for none, the others one by one."""
    operation = find_operation(name)
    asked = {key: config.getoption(f"micro_{key}") for key in operation.keys}
    levels = {key: _list(text) for key, text in asked.items() if text is not None}
    wide = {**{k: v for k, v in grid.items() if k != "implementation"}, **levels}
    for implementation in _implementations(config, operation, grid["implementation"]):
        for values in product(*wide.values()):
            chosen = dict(zip(wide, values, strict=True))
            yield name, implementation, read_options(operation, chosen, "command line"), chosen
        for key, values in {} if levels else varied.items():
            for value in values:
                chosen = {key: value}
                yield name, implementation, read_options(operation, chosen, "the suite"), chosen


def _implementations(
    config: pytest.Config, operation: Operation, usual: tuple[str, ...]
) -> list[str]:
    """Give what was asked for of this operation; other names are of suites that run beside it."""
    names = _names(config)
    if names is None:
        return list(usual)
    return [name for name in names if ":" in name or name in operation.implementations]


def _names(config: pytest.Config) -> list[str] | None:
    text = config.getoption("--implementation")
    return None if text is None else _once(text, [str(name).strip() for name in text.split(",")])


def _list(text: str) -> list[Any]:
    values = [toml_value(part.strip()) for part in text.split(",")]
    if not all(str(value) for value in values):
        raise Place("command line").error(f"{text!r} has an empty part.")
    return _once(text, values)


def _once(text: str, values: list[Any]) -> list[Any]:
    for value in values:
        if values.count(value) > 1:  # two rows of one case
            raise Place("command line").error(f"{text!r} names {value} twice; keep one.")
    return values


def _param(name: str, implementation: str, options: dict[str, Any], chosen: dict[str, Any]) -> Any:
    reason = impossible(name, implementation, options)
    if reason is None and options["device"] == "cuda" and not torch.cuda.is_available():
        reason = "needs a CUDA device"
    # colons, since -k takes no "="
    words = [implementation, *(f"{key}:{value}" for key, value in chosen.items())]
    marks = [pytest.mark.skip(reason=reason)] if reason else []
    return pytest.param((name, implementation, options), id="-".join(words), marks=marks)


class Ceilings:
    """The machine's limits, measured when the first case of a device and dtype asks for them."""

    def __init__(self) -> None:
        self.measured: list[dict[str, Any]] = []
        self.asked: dict[str, set[str]] = {}

    def of(self, device: Any, dtype: str) -> dict[str, Any]:
        known = self.asked.setdefault(device.type, set())
        if dtype not in known:
            known.add(dtype)
            self._measure(device, {dtype})
        return ceiling_of([one for one in self.measured if one["device"] == device.type])

    def again(self) -> None:
        """Measure once more, after the last case: a shared machine's limits drift."""
        for name, dtypes in self.asked.items():
            self._measure(build("device", {"name": name}), dtypes)

    def _measure(self, device: Any, dtypes: set[str]) -> None:
        values = session_ceilings(device, sorted(dtypes))
        self.measured.append({"device": device.type, **values})


STASH = pytest.StashKey[Ceilings]()


@pytest.fixture(scope="session")
def ceilings(request: pytest.FixtureRequest) -> Any:
    found = request.config.stash[STASH] = Ceilings()
    yield found
    found.again()


@pytest.fixture
def measure(benchmark: Any, ceilings: Ceilings, request: pytest.FixtureRequest) -> Any:
    """Give what times a case: checks it, runs its batches, says what the seconds mean."""

    def run(case: tuple[str, str, dict[str, Any]]) -> None:
        name, implementation, options = case
        device = build("device", {"name": options["device"]})
        device.seed(1)
        limits = ceilings.of(device, options["dtype"])
        bench = Bench(open_case(name, implementation, options, device), device)
        batches = []

        def batch() -> None:
            batches.append(bench.batch())
            CLOCK.advance(batches[-1])
            if len(batches) == WARM_BATCHES + count:  # in here, so that a failure leaves no row
                assert bench.case.finite(), "the state did not stay finite"
                bench.case.check_again()

        benchmark.group = f"{name}, {options['cache']} caches"
        count = request.config.getoption("--batches")
        benchmark.pedantic(batch, rounds=count, warmup_rounds=WARM_BATCHES)
        said = facts(bench, batches[-count:])
        seconds = sum(one.seconds for one in batches) / sum(one.calls for one in batches)
        benchmark.extra_info.update(said | share_of_ceiling(said, seconds, limits))

    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=CLOCK))


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info.pop("node", None)  # a machine's name is nobody's business
    machine_info["torch"] = torch.__version__
    machine_info["threads"] = torch.get_num_threads()


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    if STASH in config.stash:
        complete(output_json, config.stash[STASH].measured)
