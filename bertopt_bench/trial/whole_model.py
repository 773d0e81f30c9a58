"""A whole model that a user's own ``compile`` made, beside the same model in float64.

Both see a first micro-batch, with padding where there is any, without dropout. The float64 one is
written in the textbook formulas and keeps the inputs of its layers alone, so that a large batch
fits beside the trial.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from bertopt_bench.trial.check_cases import masked_batch
from bertopt_bench.workload import references
from bertopt_bench.workload.classifier import BertForClassification
from bertopt_bench.workload.model import BertForMaskedLM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from bertopt_bench.trial.live import Trial

    Outcome = dict[str, Tensor]

SMALL_SHARE = 1e-2
"""Of the greatest gradient of all: one that is smaller is measured by this. (That of the keys'
biases is 0 but for rounding, since softmax does not see them.)"""

_SEED = 20_231_102  # any: the draws are the check's alone


def known_outcomes(trial: Trial, *, gradients: bool) -> tuple[Outcome, Outcome]:
    """Give logits and gradients of the float64 model, and of the trial's own run eagerly."""
    with torch.random.fork_rng(devices=[]):  # building draws weights, in vain
        twin = _plain(trial.model)
    twin.to(trial.device.torch_device, torch.float64)
    exact = copy.copy(trial)
    exact.precision = SimpleNamespace(context=lambda _device: nullcontext())
    with _without_dropout(trial):
        twin.train(trial.model.training)
        return (
            _outcome(exact, twin, twin, gradients=gradients),
            _outcome(trial, trial.model, trial.model, gradients=gradients),
        )


def own_outcome(trial: Trial, *, gradients: bool) -> Outcome:
    """Give logits and gradients of what the user's own made of the model."""
    with _without_dropout(trial):
        return _outcome(trial, trial.compiled, trial.model, gradients=gradients)


@contextmanager
def _without_dropout(trial: Trial) -> Iterator[None]:
    """Let the model drop nothing; where it never does, it is the one that is trained."""
    was_training = trial.model.training
    config: Any = trial.model.config
    if config.dropout or config.attention_dropout:
        trial.model.eval()
    try:
        yield
    finally:
        trial.model.train(was_training)


def gradient_scales(exact: Outcome) -> dict[str, Tensor]:
    """Give what the error of each quantity is measured by."""
    greatest = {name: value.abs().max() for name, value in exact.items()}
    of_gradients = [value for name, value in greatest.items() if name != "output"]
    least = SMALL_SHARE * max(of_gradients, default=torch.zeros(()))
    return {
        name: value if name == "output" else torch.maximum(value, least.to(value))
        for name, value in greatest.items()
    }


def _outcome(
    trial: Trial, call: Callable[..., Tensor], model: nn.Module, *, gradients: bool
) -> Outcome:
    batch = masked_batch(trial)
    if not gradients:
        with torch.no_grad():
            return {"output": trial.run(call, batch, batch.masked_index).detach()}
    with torch.enable_grad():
        output = trial.run(call, batch, batch.masked_index)
        draw = torch.Generator().manual_seed(_SEED)
        weights = torch.randn(output.shape, generator=draw, dtype=torch.float64)
        named = dict(model.named_parameters())
        found = torch.autograd.grad(
            output, [*named.values()], weights.to(output.device, output.dtype), allow_unused=True
        )
    outcome = {"output": output.detach()}
    for (name, parameter), gradient in zip(named.items(), found, strict=True):
        given = torch.zeros_like(parameter) if gradient is None else gradient
        outcome[f"gradient of {name}"] = given.detach()
    return outcome


def _plain(model: nn.Module) -> nn.Module:
    """Build a model of the same weights whose operations are the textbook's."""
    plain: dict[str, Any] = {
        "attention": _Attention(),
        "gelu": references.gelu,
        "recompute": "float64 reference",
    }
    config: Any = model.config
    twin: nn.Module
    if isinstance(model, BertForClassification):
        classes = model.classifier.out_features
        twin = BertForClassification(config, classes, pooling=model.pooling, **plain)
    else:
        twin = BertForMaskedLM(config, **plain)
    twin.load_state_dict(model.state_dict())
    return twin


class _Attention:
    """Attention by its formula, on rows and over segments (``workload.ragged.attend_within``)."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, **_: Any
    ) -> Tensor:
        return references.attention(query, key, value, attn_mask)

    def segments(
        self, query: Tensor, key: Tensor, value: Tensor, borders: Tensor, _longest: int
    ) -> Tensor:
        sizes = borders.diff().tolist()
        cut = (torch.split(x.transpose(0, 1), sizes, 1) for x in (query, key, value))
        parts = zip(*cut, strict=True)
        mixed = [references.attention(q[None], k[None], v[None], None)[0] for q, k, v in parts]
        return torch.cat(mixed, 1).transpose(0, 1)
