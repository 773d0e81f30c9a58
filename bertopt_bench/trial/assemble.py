"""Make a cell live: the only place where axes and workload meet.

What comes out is a :class:`~bertopt_bench.trial.live.Trial`.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bertopt_bench import catalogue
from bertopt_bench.axes.kernels import Kernel
from bertopt_bench.errors import UserError, place_of
from bertopt_bench.matrix.modes import forward_cell, is_inference
from bertopt_bench.trial import losses
from bertopt_bench.trial.classifying import (
    ClassifyingTrial,
    build_model,
    complete,
    criterion_of,
    load_weights,
    open_parts,
)
from bertopt_bench.trial.inference import InferenceTrial
from bertopt_bench.trial.layouts import arrange, open_batches
from bertopt_bench.trial.live import Trial
from bertopt_bench.trial.optimizing import multipliers
from bertopt_bench.trial.regularizing import Regularizers
from bertopt_bench.trial.stepping import capture_whole_step, make_optimizer
from bertopt_bench.workload import formulas
from bertopt_bench.workload.classifier_formulas import is_classification
from bertopt_bench.workload.loss import masked_cross_entropy
from bertopt_bench.workload.model import (
    BertConfig,
    BertForMaskedLM,
    initialise,
    parameter_groups,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bertopt_bench.trial.batches import Batch
    from bertopt_bench.workload.classifier import BertForClassification

CALLED = ("attention", "layer_norm", "gelu", "mlm_loss")
"""Operations whose call a kernel may replace in the network."""


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

    That signature stands at the operation's first entry ('Own:'); for ``compile`` it is model ->
    callable. A name may stand for one that is installed.
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
    call = partial(catalogue.resolve(f"kernel.{operation}", name), **options)
    return Kernel(call=call, compiles=True)  # it may: what a user's own does is not known


def assemble(request: Mapping[str, Any]) -> Trial:
    """Assemble the trial that a request describes (see ``dispatch.local.trial_request``)."""
    cell, text, seed = request["cell"], request["text"], request["seed"]
    forward_only = is_inference(cell)
    cell = forward_cell(cell) if forward_only else cell
    workload = cell["workload"]
    device = build("device", cell["device"])
    precision = build("precision", cell["precision"])
    precision.apply()
    kernels = _kernels(cell)
    make_regularizers = partial(_regularizers, cell)
    model = _model(cell, text, make_regularizers().model_options(), kernels)
    weights_sha256 = _start(model, text, seed, device, precision)
    groups = parameter_groups(model)
    batches, held_out, train_sample = _open_texts(cell, text, seed, device)
    schedule = build("schedule", cell["schedule"], workload["steps"])
    trial = _kind(cell, forward_only=forward_only)(
        cell=cell,
        steps=request["steps"],
        device=device,
        precision=precision,
        model=model,
        criterion=_criterion(cell, text, device),
        summed_loss=_summed_loss(kernels),
        compiled=_compiled(model, cell["kernel"]["compile"]["name"], kernels["compile"]),
        groups=groups,
        batches=batches,
        held_out=held_out,
        train_sample=train_sample,
        multipliers=multipliers(schedule, workload["steps"]),
        make_regularizers=make_regularizers,
        make_optimizer=partial(make_optimizer, cell, groups, kernels),
        kernels=kernels,
        initial_weights_sha256=weights_sha256,
        kernel_contexts=_enter(kernels),
        keeps_gradients=any(kernel.options.get("capturable") for kernel in kernels.values()),
    )
    return _completed(trial, text)


def _completed(trial: Trial, text: Mapping[str, Any]) -> Trial:
    """Give an assembled trial what only its kind has."""
    if isinstance(trial, ClassifyingTrial):
        complete(trial, text)
    if "cuda_graph" in trial.kernels and trial.kernels["cuda_graph"].in_place:
        capture_whole_step(trial)
    return trial


def _kind(cell: Mapping[str, Any], *, forward_only: bool) -> type[Trial]:
    if is_classification(cell):
        return ClassifyingTrial
    return InferenceTrial if forward_only else Trial


def _criterion(cell: Mapping[str, Any], text: Mapping[str, Any], device: Any) -> Any:
    """Give what makes a loss of logits and labels: summed over masked slots, or over texts."""
    if is_classification(cell):
        return criterion_of(cell, text, device.torch_device)
    return masked_cross_entropy


def _open_texts(cell: Mapping[str, Any], text: Mapping[str, Any], seed: int, device: Any) -> Any:
    """Open a seed's batches, the held-out ones, a sample of train text, in the cell's layout."""
    if is_classification(cell):
        micro_batches = cell["workload"]["micro_batches"]
        return (*open_parts(text, seed, device.torch_device, micro_batches), None)
    open_text = partial(
        open_batches,
        device=device.torch_device,
        micro_batches=cell["workload"]["micro_batches"],
        arrangement=arrange(cell),
    )
    sample = text.get("train_sample")
    return (
        open_text(text["batches"][str(seed)]),
        open_text(text["evaluation"]),
        open_text(sample) if sample else None,
    )


def _kernels(cell: Mapping[str, Any]) -> dict[str, Kernel]:
    """Build the cell's kernels; within a compiled model nothing names what is computed again.

    There the whole model is one graph (``fullgraph``), which torch marks what to compute again in.
    """
    kernels = {op: build_kernel(op, choice) for op, choice in cell["kernel"].items()}
    if "checkpointing" in kernels and cell["kernel"]["compile"]["name"] != "off":
        kernels["checkpointing"] = replace(kernels["checkpointing"], expects=())
    return kernels


def _start(
    model: torch.nn.Module, text: Mapping[str, Any], seed: int, device: Any, precision: Any
) -> str:
    """Draw or load the weights, place them, seed what training draws; give the weights' hash."""
    initialise(model, torch.Generator().manual_seed(derive_seed(seed, "initial_weights")))
    load_weights(model, text)
    weights_sha256 = hash_weights(model)
    model.to(device=device.torch_device, dtype=getattr(torch, precision.weight_dtype))
    device.seed(derive_seed(seed, "dropout"))
    model.train()
    return weights_sha256


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
    cell: Mapping[str, Any],
    text: Mapping[str, Any],
    options: Mapping[str, Any],
    kernels: Mapping[str, Kernel],
) -> BertForMaskedLM | BertForClassification:
    replaced: dict[str, Any] = {name: kernels[name].call for name in CALLED if name in kernels}
    replaced |= kernels.get("checkpointing", Kernel()).options
    if is_classification(cell):
        return build_model(cell, text, options, replaced)
    config = BertConfig(
        vocabulary_size=text["vocabulary_size"],
        size=formulas.model_size(cell["workload"]["model"]),
        position_embedding=cell["workload"]["position_embedding"],
        next_sentence=cell["workload"].get("next_sentence", False),
        **options,
    )
    return BertForMaskedLM(config, **replaced)


def _summed_loss(kernels: Mapping[str, Kernel]) -> Callable[[Trial, Batch], torch.Tensor]:
    """Choose how a micro-batch's loss is computed."""
    kernel = kernels.get("mlm_loss", Kernel())
    if kernel.call is not None:
        return losses.within_the_model
    return losses.all_slots if kernel.options.get("all_slots") else losses.gathered


def _compiled(model: torch.nn.Module, name: str, kernel: Kernel) -> Callable[..., torch.Tensor]:
    if name == "off":
        return model
    if kernel.call is not None:
        return _own_model(model, name, kernel.call)
    compiled: Callable[..., torch.Tensor] = torch.compile(model, dynamic=False, **kernel.options)
    return compiled


def _own_model(
    model: torch.nn.Module, name: str, make: Callable[..., Any]
) -> Callable[..., torch.Tensor]:
    """Let a user's own make what is called in place of the model.

    Raises:
        UserError: it raised, gives nothing that can be called, or changed the model's parameters.
    """
    due = "It is called with the model alone and gives what is called in its place."
    before = _parameters(model)
    try:
        own: Any = make(model)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise UserError(
            f"kernel.compile '{name}' failed: {type(error).__name__}: {error} "
            f"(at {place_of(error)}). {due}"
        ) from error
    if not callable(own):
        raise UserError(f"kernel.compile '{name}' gives {type(own).__name__}. {due}")
    changed = before.items() ^ _parameters(model).items()
    if changed:
        first = min(parameter for parameter, _ in changed)
        raise UserError(
            f"kernel.compile '{name}' changed the model's parameters ('{first}'): the optimizer "
            "steps those that were there, in their dtype. What it is given must stay as it was; "
            "change a copy, or let precision choose the dtype."
        )
    called: Callable[..., torch.Tensor] = own
    return called


def _parameters(model: torch.nn.Module) -> dict[str, tuple[Any, ...]]:
    """Tell each parameter's object, kind and values (their sum)."""
    return {
        name: (
            id(one),
            one.dtype,
            one.device,
            one.requires_grad,
            float(one.detach().double().sum()),
        )
        for name, one in model.named_parameters()
    }


def hash_weights(model: torch.nn.Module) -> str:
    """Hash the fp32 weights, in the order of their names."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.detach().float().numpy()).data)
    return digest.hexdigest()
