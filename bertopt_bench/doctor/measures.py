"""What ``doctor`` measures with: ceilings in a trial process, the noise floor by a short duel."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.dispatch.duelling import prepare_duel, run_duel
from bertopt_bench.dispatch.local import Zygote, trial_threads
from bertopt_bench.dispatch.outcomes import ending
from bertopt_bench.dispatch.preparing import ask_capabilities
from bertopt_bench.dispatch.progress import SilentDisplay
from bertopt_bench.doctor import Measures
from bertopt_bench.duelling import CALIBRATION, read_duel
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.duels import Settings
from bertopt_bench.results.reading import read_folder
from bertopt_bench.results.store import ResultsFolder
from bertopt_bench.stats.duels import analyse

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = Settings(purpose="calibration", replicates=6, most_warm_seconds=1.5, rounds=2)
CEILING_SECONDS = 3.0
TIMEOUT_SECONDS = 60.0


@contextmanager
def measures() -> Iterator[Measures]:
    """Give the three measures; they share one trial process, which sleeps between them."""
    threads = trial_threads()
    with Zygote(threads=threads) as zygote:

        def ceilings() -> dict[str, Any]:
            found = {}
            for name, device in devices().items():
                request = {"device": device, "seconds_budget": CEILING_SECONDS, "threads": threads}
                outcome = zygote.run("ceilings", request, timeout_seconds=TIMEOUT_SECONDS)
                values = (outcome.final or {}).get("values")
                found[name] = values or {"reason": ending(outcome, TIMEOUT_SECONDS)["reason"]}
            return found

        yield Measures(measure_noise, ceilings, lambda: zygote.description["torch_build"])


def devices() -> dict[str, dict[str, Any]]:
    """Name the processor and every GPU, each with its choice on the device axis."""
    count = ask_capabilities()["cuda"]["count"]
    gpus = {f"cuda {index}": {"name": "cuda", "index": index} for index in range(count)}
    return {"cpu": {"name": "cpu"}, **gpus}


def measure_noise() -> dict[str, Any]:
    """Duel the built-in cell with itself, in a folder that is thrown away."""
    asked = read_duel(CALIBRATION)
    plan = prepare_duel(asked.matrix, asked.arms, SETTINGS, SilentDisplay())
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "noise"
        with ResultsFolder.open(results, plan.digest) as store:
            verdicts = run_duel(plan, store, SilentDisplay(), analyse)
        if verdicts.state == "invalid":
            raise UserError(f"the duel of identical arms failed: {verdicts.reasons[0]}")
        blocks = [block for one in read_folder(results).replicates for block in one.blocks]
    return {
        "finding": verdicts.controls[0].model_dump(mode="json") if verdicts.controls else None,
        "blocks": [block.model_dump() for block in blocks],
        "what": f"a tiny BERT on the CPU, {verdicts.replicates} replicates of "
        f"{plan.declaration.rounds} rounds",
    }
