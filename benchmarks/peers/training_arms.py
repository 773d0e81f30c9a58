"""What one process of ``training_peers.py`` runs: an arm, in whichever interpreter is the arm's.

    python training_arms.py ARM FOLDER [--memory]

The folder holds ``setting.json``; ``prepare`` adds a checkpoint and our batches as tensors. What an
arm measured goes to ``result.json``. Only torch and the standard library are imported above the
arms, and of this project what stands on these alone.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from bertopt_bench.measure.memory import resident_peak_bytes, storage_bytes
from bertopt_bench.measure.tracing import trace_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

CHECKPOINT, BATCHES = "checkpoint", "batches.pt"
COLUMNS = ("input_ids", "attention_mask", "labels")
VERSIONS = ("torch", "transformers", "accelerate", "optimum-benchmark")


class Host:
    """What the meters ask of a device."""

    type, clock_kind = "cpu", "perf_counter"

    def synchronize(self) -> None:
        """Wait for nothing: a call on the host returns when it is done."""


def prepare(setting: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write the first weights as a checkpoint, and our batches as transformers takes them."""
    from bertopt_bench.trial.assemble import assemble
    from bertopt_bench.workload.checkpoints import save

    trial = assemble(setting["request"])
    save(trial.model, None, folder / CHECKPOINT)  # type: ignore[arg-type]  # assemble makes no other
    taken = [trial.fetch(i, 0) for i in range(setting["burn_in"] + setting["steps"])]
    torch.save([as_transformers_takes_it(batch) for batch in taken], folder / BATCHES)
    return {}


def as_transformers_takes_it(batch: Any) -> dict[str, torch.Tensor]:
    """Give a batch with a label in every slot, -100 where nothing is masked, and a mask of ones."""
    ids, mask = batch.input_ids.long(), batch.attention_mask
    real = torch.ones_like(ids) if mask is None else mask.view(len(ids), -1).long()
    labels = torch.full_like(ids, -100)
    index = batch.masked_index.long()
    labels.view(-1)[index[batch.labels >= 0]] = batch.labels[batch.labels >= 0]
    return {"input_ids": ids, "attention_mask": real, "labels": labels}


def ours(setting: dict[str, Any], _: Path) -> dict[str, Any]:
    """Train a trial as a matrix makes it."""
    from bertopt_bench.trial.assemble import assemble

    trial = assemble(setting["request"])
    with torch.no_grad():
        first = float(trial.forward(trial.fetch(0, 0), 0))
    seconds = timed(setting, trial.step)
    resident = resident_peak_bytes()
    trial.drain()
    held = storage_bytes(trial.resident_tensors())
    above = trace_step(lambda: trial.step(0), Host()).peak_bytes_above_start
    parameters = sum(p.numel() for p in trial.model.parameters())
    return measured(seconds, parameters, resident) | {
        "first_loss": first,
        "peak_memory_bytes": held + above,
    }


def accelerate(setting: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train transformers' model on our batches, in the loop that accelerate's guide shows."""
    from accelerate import Accelerator
    from torch.utils.data import DataLoader, TensorDataset
    from transformers import BertForMaskedLM

    accelerator = Accelerator(cpu=True)
    batches = torch.load(folder / BATCHES)
    columns = [torch.cat([batch[name] for batch in batches]) for name in COLUMNS]
    loader = DataLoader(TensorDataset(*columns), batch_size=setting["batch_size"])
    model = BertForMaskedLM.from_pretrained(folder / CHECKPOINT)
    optimizer = torch.optim.AdamW(decayed(model, setting), **rates(setting), fused=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    model.train()
    with torch.no_grad():
        first = float(model(**batches[0]).loss)
    order = forever(loader)

    def step(_: int) -> None:
        loss = model(**dict(zip(COLUMNS, next(order), strict=True))).loss
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    seconds = timed(setting, step)
    resident = resident_peak_bytes()
    held = storage_bytes([*model.parameters(), *model.buffers(), *state_of(optimizer)])
    above = trace_step(lambda: step(0), Host()).peak_bytes_above_start
    parameters = sum(p.numel() for p in model.parameters())
    return measured(seconds, parameters, resident) | {
        "first_loss": first,
        "peak_memory_bytes": held + above,
    }


def timed(setting: dict[str, Any], step: Callable[[int], None]) -> list[float]:
    """Burn in, then give the seconds from step to step."""
    burn_in, steps = setting["burn_in"], setting["steps"]
    for index in range(burn_in):
        step(index)
    marks = [perf_counter()]
    for index in range(burn_in, burn_in + steps):
        step(index)
        marks.append(perf_counter())
    return [after - before for before, after in pairwise(marks)]


def forever(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def state_of(optimizer: Any) -> Iterator[torch.Tensor]:
    for of_one in optimizer.state.values():
        yield from (value for value in of_one.values() if isinstance(value, torch.Tensor))


def decayed(model: Any, setting: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the two groups of AdamW: no vector decays."""
    decay = setting["optimizer"]["weight_decay"]
    groups: dict[bool, list[Any]] = {True: [], False: []}
    for parameter in model.parameters():
        groups[parameter.ndim > 1].append(parameter)
    return [
        {"params": groups[True], "weight_decay": decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]


def rates(setting: dict[str, Any]) -> dict[str, Any]:
    settings = setting["optimizer"]
    return {"lr": settings["lr"], "betas": tuple(settings["betas"]), "eps": settings["eps"]}


def optimum(setting: dict[str, Any], folder: Path, *, ours_fed: bool = False) -> dict[str, Any]:
    """Run optimum-benchmark's training scenario, and look at what its generator feeds."""
    from optimum_benchmark import Benchmark, BenchmarkConfig, InlineConfig, PyTorchConfig
    from optimum_benchmark.backends.pytorch import backend
    from optimum_benchmark.scenarios.training import scenario

    fed: dict[str, Any] = {}
    scenario.DatasetGenerator = observing(scenario.DatasetGenerator, fed, folder, ours_fed=ours_fed)
    backend.Trainer = counting(backend.Trainer, fed)
    report = Benchmark.launch(
        BenchmarkConfig(
            name="training_peers",
            launcher=InlineConfig(),
            scenario=training_config(setting, memory="--memory" in sys.argv),
            backend=PyTorchConfig(
                model=str(folder / CHECKPOINT),
                task="fill-mask",
                library="transformers",
                model_type="bert",
                device="cpu",
            ),
        )
    )
    found = report.to_dict()
    seconds = found["train"]["latency"]["values"]
    return measured(seconds, fed.pop("parameters"), resident_peak_bytes()) | {
        "first_loss": None,
        "peak_memory_bytes": None,
        "report": found,
        "fed": fed,
    }


def training_config(setting: dict[str, Any], *, memory: bool) -> Any:
    """Give the scenario's settings: as many steps as sequences last for, once."""
    from optimum_benchmark import TrainingConfig

    steps, settings = setting["burn_in"] + setting["steps"], setting["optimizer"]
    return TrainingConfig(
        max_steps=steps,
        warmup_steps=setting["burn_in"],
        latency=True,
        memory=memory,
        dataset_shapes={
            "dataset_size": steps * setting["batch_size"],
            "sequence_length": setting["seq_len"],
        },
        training_arguments={
            "per_device_train_batch_size": setting["batch_size"],
            "optim": "adamw_torch_fused",
            "learning_rate": settings["lr"],
            "adam_beta1": settings["betas"][0],
            "adam_beta2": settings["betas"][1],
            "adam_epsilon": settings["eps"],
            "weight_decay": settings["weight_decay"],
            "max_grad_norm": 0.0,
            "lr_scheduler_type": "constant",
            "logging_strategy": "no",
            "disable_tqdm": True,
            "max_steps": steps,
        },
    )


def observing(generator: Any, fed: dict[str, Any], folder: Path, *, ours_fed: bool) -> Any:
    """Let a dataset generator note what it gives; with ``ours_fed`` give our sequences instead."""

    class Observing(generator):  # type: ignore[misc]
        def __call__(self) -> Any:
            dataset = our_dataset(folder) if ours_fed else super().__call__()
            fed.update(describe(dataset))
            return dataset

    return Observing


def counting(trainer: Any, fed: dict[str, Any]) -> Any:
    """Let the Trainer note how many parameters it trains: tied ones once."""

    class Counting(trainer):  # type: ignore[misc]
        def train(self, *words: Any, **named: Any) -> Any:
            fed["parameters"] = sum(p.numel() for p in self.model.parameters())
            return super().train(*words, **named)

    return Counting


def our_dataset(folder: Path) -> Any:
    from datasets import Dataset

    batches = torch.load(folder / BATCHES)
    columns = {name: torch.cat([batch[name] for batch in batches]) for name in COLUMNS}
    dataset = Dataset.from_dict({name: column.numpy() for name, column in columns.items()})
    dataset.set_format(type="torch", columns=list(COLUMNS))
    return dataset


def describe(dataset: Any) -> dict[str, Any]:
    """Say what is fed: columns, shape, share of slots with a label and share that is attended."""
    whole = dataset[:]
    return {
        "columns": sorted(whole),
        "shape": list(whole["input_ids"].shape),
        "label_share": float((whole["labels"] >= 0).double().mean()),
        "attended_share": float(whole["attention_mask"].double().mean()),
        "distinct_tokens": int(whole["input_ids"].unique().numel()),
    }


def measured(seconds: list[float], parameters: int, resident: int | None) -> dict[str, Any]:
    """Give what all arms tell."""
    return {
        "step_seconds": seconds,
        "parameters": parameters,
        "peak_resident_bytes": resident,
        "threads": torch.get_num_threads(),
        "versions": {name: version_of(name) for name in VERSIONS},
    }


def version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def main() -> None:
    arm, folder = sys.argv[1], Path(sys.argv[2])
    setting = json.loads((folder / "setting.json").read_text(encoding="utf-8"))
    torch.set_num_threads(setting["threads"])
    arms = {
        "prepare": prepare,
        "ours": ours,
        "accelerate": accelerate,
        "optimum": optimum,
        "optimum_our_batches": lambda *given: optimum(*given, ours_fed=True),
    }
    result = arms[arm](setting, folder)
    (folder / "result.json").write_text(json.dumps(result, default=float), encoding="utf-8")


if __name__ == "__main__":
    main()
