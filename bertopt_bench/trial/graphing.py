"""A whole training step that reads from buffers of its own, so that it can be captured once.

Batches, the number of masked tokens and the learning rates are copied to where the captured step
reads them; the loss is copied out. Gradients keep their place and are set to 0 in the step.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from bertopt_bench.trial.optimizing import set_rates

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertopt_bench.trial.batches import Batch
    from bertopt_bench.trial.live import Trial

    Call = Callable[[], Any]


class WholeStep:
    """Steps a trial; ``run`` makes of the step's body a call that is captured and replayed.

    Nothing in the body may depend on a number of the host that changes from step to step.
    """

    def __init__(self, trial: Trial, run: Callable[[Call], Call]) -> None:
        self.trial = trial
        self.buffers: list[Batch] = []
        device = trial.device.torch_device
        dtype = getattr(torch, trial.precision.weight_dtype)
        self.tokens = torch.ones((), dtype=dtype, device=device)
        self.loss = torch.zeros((), dtype=dtype, device=device)
        self.run = run(partial(_body, self))

    def __call__(self, index: int) -> None:
        """Fill the buffers, run the step, keep its loss."""
        trial = self.trial
        batches = [trial.fetch(index, micro) for micro in range(trial.batches.micro_batches)]
        if not self.buffers:
            self.buffers = [_copied(batch) for batch in batches]
        for buffer, batch in zip(self.buffers, batches, strict=True):
            _fill(buffer, batch)
        self.tokens.fill_(trial.batches.masked_tokens[index])
        set_rates(trial.optimizer, trial.multiplier())
        self.run()
        trial.schedule_step += 1
        trial.losses.append(self.loss.clone())


def _body(whole: WholeStep) -> None:
    """Do on the buffers what a step does, all of it on the device."""
    trial = whole.trial
    whole.loss.zero_()
    for batch in whole.buffers:
        loss = trial.summed_loss(trial, batch) / whole.tokens
        trial.backward(trial.penalise(loss, batch))
        whole.loss.add_(loss.detach())
    for hook in trial.regularizers.gradients:
        hook(trial.optimizer.param_groups)
    trial.optimizer.step()
    for hook in trial.regularizers.after_step:
        hook(trial.optimizer.param_groups)
    trial.optimizer.zero_grad(set_to_none=False)


def _copied(batch: Batch) -> Batch:
    tensors = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{n: t.clone() for n, t in tensors.items() if t is not None})


def _fill(buffer: Batch, batch: Batch) -> None:
    for field in fields(batch):
        tensor = getattr(batch, field.name)
        if tensor is not None:
            getattr(buffer, field.name).copy_(tensor)
