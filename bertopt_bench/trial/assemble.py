"""Make a cell live: the only place where axes and workload meet.

What comes out is a :class:`~bertopt_bench.trial.live.Trial`.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bertopt_bench import catalogue
from bertopt_bench.axes.kernels import Kernel
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.modes import forward_cell, is_inference
from bertopt_bench.trial.batches import open_batches
from bertopt_bench.trial.inference import InferenceTrial
from bertopt_bench.trial.live import Trial
from bertopt_bench.trial.optimizing import DECAYS, build_optimizer, multipliers
from bertopt_bench.trial.regularizing import Regularizers
from bertopt_bench.workload import formulas
from bertopt_bench.workload.loss import masked_cross_entropy
from bertopt_bench.workload.model import (
    BertConfig,
    BertForMaskedLM,
    initialise,
    parameter_groups,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CALLED = ("attention", "layer_norm")  # operations whose call a kernel may replace in the network
STREAMS = ("initial_weights", "dropout")  # data order and masks were drawn with the batches


def derive_seed(seed: int, stream: str) -> int:
    """Derive a generator's seed, a different one for every use of the trial's seed."""
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def build(axis: str, choice: Mapping[str, Any], *positional: Any) -> Any:
    """Call the entry that a cell names, with the cell's options."""
    options = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in choice.items()
        if key != "name"
    }
    return catalogue.resolve(axis, choice["name"])(*positional, **options)


def build_kernel(operation: str, choice: Mapping[str, Any]) -> Kernel:
    """Build an operation's kernel; a user's own is the function itself, with the call's signature.

    For ``attention`` that is scaled_dot_product_attention's, for ``layer_norm`` torch's function of
    that name, for ``compile`` model -> callable. A name may stand for one that is installed.
    """
    name = choice["name"]
    if catalogue.describe(f"kernel.{operation}", name).target.startswith("bertopt_bench."):
        kernel: Kernel = build(f"kernel.{operation}", choice)
        return kernel
    if operation == "optimizer_step":
        raise UserError(
            f"kernel.optimizer_step '{name}': a step belongs to its optimizer; write "
            f"optimizer = '{name}' instead."
        )
    options = {key: value for key, value in choice.items() if key != "name"}
    return Kernel(call=partial(catalogue.resolve(f"kernel.{operation}", name), **options))


def assemble(request: Mapping[str, Any]) -> Trial:
    """Assemble the trial that a request describes (see ``dispatch.local.trial_request``)."""
    cell, text, seed = request["cell"], request["text"], request["seed"]
    forward_only = is_inference(cell)
    cell = forward_cell(cell) if forward_only else cell
    workload = cell["workload"]
    device = build("device", cell["device"])
    precision = build("precision", cell["precision"])
    precision.apply()
    kernels = {op: build_kernel(op, choice) for op, choice in cell["kernel"].items()}
    make_regularizers = partial(_regularizers, cell)
    model_options = make_regularizers().model_options()
    model = _model(text["vocabulary_size"], workload, model_options, kernels)
    initialise(model, torch.Generator().manual_seed(derive_seed(seed, "initial_weights")))
    weights_sha256 = hash_weights(model)
    model.to(device=device.torch_device, dtype=getattr(torch, precision.weight_dtype))
    device.seed(derive_seed(seed, "dropout"))
    model.train()
    groups = parameter_groups(model)
    open_text = partial(
        open_batches, device=device.torch_device, micro_batches=workload["micro_batches"]
    )
    schedule = build("schedule", cell["schedule"], workload["steps"])
    make = InferenceTrial if forward_only else Trial
    return make(
        cell=cell,
        steps=request["steps"],
        device=device,
        precision=precision,
        model=model,
        criterion=masked_cross_entropy,
        compiled=_compiled(model, cell["kernel"]["compile"]["name"], kernels["compile"]),
        groups=groups,
        batches=open_text(text["batches"][str(seed)]),
        held_out=open_text(text["evaluation"]),
        multipliers=multipliers(schedule, workload["steps"]),
        make_regularizers=make_regularizers,
        make_optimizer=lambda regularizers: _optimizer(cell, groups, kernels, regularizers),
        kernels=kernels,
        initial_weights_sha256=weights_sha256,
        kernel_contexts=_enter(kernels),
    )


def _regularizers(cell: Mapping[str, Any]) -> Regularizers:
    return Regularizers([build("regularizer", choice) for choice in cell["regularizer"]])


def _enter(kernels: Mapping[str, Kernel]) -> ExitStack:
    """Enter what kernels hold for the whole trial."""
    stack = ExitStack()
    for kernel in kernels.values():
        if kernel.context is not None:
            stack.enter_context(kernel.context())
    return stack


def _model(
    vocabulary_size: int,
    workload: Mapping[str, Any],
    options: Mapping[str, Any],
    kernels: Mapping[str, Kernel],
) -> BertForMaskedLM:
    config = BertConfig(
        vocabulary_size=vocabulary_size,
        size=formulas.model_size(workload["model"]),
        position_embedding=workload["position_embedding"],
        **options,
    )
    replaced = {name: kernels[name].call for name in CALLED if name in kernels}
    return BertForMaskedLM(config, **replaced)


def _compiled(model: torch.nn.Module, name: str, kernel: Kernel) -> Callable[..., torch.Tensor]:
    if name == "off":
        return model
    if kernel.call is not None:
        own: Callable[..., torch.Tensor] = kernel.call(model)
        return own
    compiled: Callable[..., torch.Tensor] = torch.compile(model, dynamic=False, **kernel.options)
    return compiled


def _optimizer(
    cell: Mapping[str, Any],
    groups: list[dict[str, Any]],
    kernels: Mapping[str, Kernel],
    regularizers: Regularizers,
) -> torch.optim.Optimizer:
    choice = cell["optimizer"]
    entry = catalogue.describe("optimizer", choice["name"])
    outside = ":" in choice["name"]  # what its decay argument means is not known here
    accepts = entry.accepts - set(DECAYS) if outside else entry.accepts
    options = {key: value for key, value in choice.items() if key != "name"}
    step_options = {  # an optimizer without the keyword has the loop only
        key: value
        for key, value in kernels["optimizer_step"].options.items()
        if value or key in entry.accepts
    }
    return build_optimizer(
        catalogue.resolve("optimizer", choice["name"]),
        accepts,
        groups,
        {**options, **step_options},
        regularizers.optimizer_options(),
    )


def hash_weights(model: torch.nn.Module) -> str:
    """Hash the fp32 weights, in the order of their names."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.detach().float().numpy()).data)
    return digest.hexdigest()
