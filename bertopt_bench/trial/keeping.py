"""Keep a running trial at its evaluations, and continue one that was killed, bit for bit.

What is kept: weights, optimizer, scaler, what regularizers hold, generators, the schedule's step,
how far the trial came, and what it had reported. A batch is looked up by its number, so the number
of steps done is its whole place in the data. A file is read with ``weights_only``: it runs no code.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bertopt_bench.matrix.identity import canonical_json
from bertopt_bench.measure.torch_build import gpu_name
from bertopt_bench.trial.loop import Start

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.trial.live import Trial

_STATEFUL = ("state_dict", "load_state_dict")


def why_not(trial: Trial) -> str:
    """Say why a trial cannot be kept, empty where it can.

    A step that was compiled or captured has its state where the graph expects it; a regularizer
    that holds tensors must say how it is saved.
    """
    if trial.reset_optimizer is not None or trial.whole_step is not None:
        return "its optimizer's step is compiled or captured"
    for part in trial.regularizers.parts:
        ours = type(part).__module__.startswith("bertopt_bench.")
        held = trial.regularizers.state_of(part) or (getattr(part, "__dict__", {}) and not ours)
        if held and not all(hasattr(part, name) for name in _STATEFUL):
            return f"its regularizer {type(part).__name__} has no state_dict and load_state_dict"
    return ""


class Keeper:
    """Saves one trial's state to the file that its request names, and finds it there again."""

    def __init__(self, trial: Trial, request: Mapping[str, Any]) -> None:
        self.trial, self.request = trial, request
        self.messages: list[dict[str, Any]] = []
        self.seconds: list[float] = []
        self.interrupted: list[int] = []
        wanted = request.get("checkpoint")
        self.file = Path(wanted["file"]) if wanted and not why_not(trial) else None

    def continue_from(self) -> Start:
        """Put the trial where a killed one was; at its start where nothing fitting was kept."""
        kept = self._read()
        if kept is None:
            return Start()
        trial, state = self.trial, kept["state"]
        trial.model.load_state_dict(state["model"])
        _load_optimizer(trial.optimizer, state["optimizer"])
        if trial.scaler is not None:
            trial.scaler.load_state_dict(state["scaler"])
            trial.scale = trial.scaler.get_scale()
        _load_parts(trial, state["regularizers"])
        trial.schedule_step, trial.skipped_steps = state["schedule_step"], state["skipped_steps"]
        trial.device.set_random_state(_tuples(state["random"]))
        self.messages, self.seconds = kept["messages"], kept["seconds"]
        self.interrupted = [*kept["interrupted"], kept["position"]]
        return Start(kept["position"], self.messages[1]["losses"][0])

    def save(self, position: int, new_seconds: Sequence[float]) -> None:
        """Write the state after so many steps, whole or not at all; at the start there is none."""
        if self.file is None or position in {0, self.trial.steps}:
            return
        trial = self.trial
        kept = {
            "identity": self._identity(),
            "position": position,
            "messages": self.messages,
            "seconds": [*self.seconds, *new_seconds],
            "interrupted": self.interrupted,
            "state": {
                "model": trial.model.state_dict(),
                "optimizer": trial.optimizer.state_dict(),
                "scaler": None if trial.scaler is None else trial.scaler.state_dict(),
                "regularizers": [_state_of(part) for part in trial.regularizers.parts],
                "schedule_step": trial.schedule_step,
                "skipped_steps": trial.skipped_steps,
                "random": _lists(trial.device.random_state()),
            },
        }
        self.file.parent.mkdir(exist_ok=True)
        unfinished = self.file.with_suffix(".unfinished")
        try:
            with unfinished.open("wb") as stream:
                torch.save(kept, stream)
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(self.file)
        except (OSError, RuntimeError):  # a full disk costs the checkpoint, not the trial
            unfinished.unlink(missing_ok=True)
            self.file = None

    def _identity(self) -> str:
        """Name all that the state depends on: the trial, its data, weights, code and machine."""
        text = self.request["text"]
        return canonical_json(
            {
                **{key: self.request[key] for key in ("cell", "seed", "steps")},
                "batches": text["batches"][str(self.request["seed"])]["sha256"],
                "evaluation": text["evaluation"]["sha256"],
                "weights": self.trial.initial_weights_sha256,
                "code": self.request["checkpoint"]["code"],
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "cpu": torch.backends.cpu.get_cpu_capability(),
                "gpu": gpu_name(self.trial.device),
            }
        )

    def _read(self) -> dict[str, Any] | None:
        """Read what was kept of this very trial; what cannot be read or is another's counts not."""
        if self.file is None or not self.file.is_file():
            return None
        try:
            kept: dict[str, Any] = torch.load(self.file, weights_only=True, map_location="cpu")
        except Exception:  # noqa: BLE001 - whatever a damaged file makes torch raise
            return None
        return kept if kept.get("identity") == self._identity() else None


def _load_optimizer(optimizer: torch.optim.Optimizer, kept: dict[str, Any]) -> None:
    """Load an optimizer's state; torch casts each tensor to its weight's dtype, which is undone."""
    optimizer.load_state_dict(kept)
    states = optimizer.state_dict()["state"]
    for number, saved in kept["state"].items():
        for name, value in saved.items():
            now = states[number].get(name)
            if isinstance(value, torch.Tensor) and now is not None and now.dtype != value.dtype:
                states[number][name] = value.to(now.device)


def _state_of(part: Any) -> Any:
    return part.state_dict() if all(hasattr(part, name) for name in _STATEFUL) else None


def _load_parts(trial: Trial, states: Sequence[Any]) -> None:
    for part, state in zip(trial.regularizers.parts, states, strict=True):
        if state is not None:
            part.load_state_dict(state, trial.optimizer.param_groups)


def _lists(value: Any) -> Any:
    """Turn the arrays and tuples of generators' states into lists, which need no code to load."""
    if hasattr(value, "tolist") and not isinstance(value, torch.Tensor):
        return value.tolist()
    return [_lists(part) for part in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    """Turn lists back into the tuples that generators want."""
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
