"""The trial itself: a model, its optimizer and its text, to be stepped, evaluated and put back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from bertopt_bench.trial import sentences
from bertopt_bench.trial.loop import DIVERGED_FACTOR
from bertopt_bench.trial.optimizing import set_rates
from bertopt_bench.trial.regularizing import LossContext, Regularizers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import ExitStack

    from bertopt_bench.trial.batches import Batch, Batches
    from bertopt_bench.trial.layouts import RaggedBatches

    Made = tuple[torch.optim.Optimizer, Callable[[], None] | None]  # what puts it back in place


@dataclass(slots=True)
class Evaluation:
    """Held-out figures: mean unregularised loss a masked token, and the share guessed right."""

    loss: float
    masked_accuracy: float
    next_sentence_loss: float | None = None
    next_sentence_accuracy: float | None = None
    train_loss: float | None = None


@dataclass(slots=True)
class Trial:
    """A cell that runs. Everything that a step needs is looked up once, here."""

    diverged_factor: ClassVar[float] = DIVERGED_FACTOR
    cell: Mapping[str, Any]
    steps: int
    device: Any
    precision: Any
    model: torch.nn.Module
    compiled: Callable[..., torch.Tensor]
    criterion: Callable[..., torch.Tensor]
    summed_loss: Callable[[Trial, Batch], torch.Tensor]
    groups: list[dict[str, Any]]
    batches: Batches | RaggedBatches
    held_out: Batches | RaggedBatches
    multipliers: list[float]
    make_regularizers: Callable[[], Regularizers]
    make_optimizer: Callable[[Regularizers], Made]
    kernels: Mapping[str, Any]
    initial_weights_sha256: str
    kernel_contexts: ExitStack
    keeps_gradients: bool = False
    train_sample: Batches | RaggedBatches | None = None
    whole_step: Callable[[int], None] | None = None
    regularizers: Regularizers = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    reset_optimizer: Callable[[], None] | None = field(init=False, default=None)
    scaler: torch.amp.GradScaler | None = field(init=False, default=None)
    label_smoothing: float = field(init=False)
    losses: list[torch.Tensor] = field(init=False, default_factory=list)
    skipped_steps: int = field(init=False, default=0)
    schedule_step: int = field(init=False, default=0)
    stepped: bool = field(init=False, default=False)
    scale: float = field(init=False, default=0.0)
    relation: torch.Tensor = field(init=False)  # logits of the last pairs that ran
    _initial: dict[str, torch.Tensor] = field(init=False)
    _random_state: Any = field(init=False)

    def __post_init__(self) -> None:
        self._initial = {
            name: value.detach().to("cpu", copy=True)  # on the host: no byte of the device's
            for name, value in self.model.state_dict().items()
        }
        self._random_state = self.device.random_state()
        self._renew()

    def _renew(self) -> None:
        """Make what carries state between steps anew, by the factories that made it first.

        An optimizer whose step was compiled or captured stays, and is put back in place.
        """
        self.regularizers = self.make_regularizers()
        if self.reset_optimizer is None:
            self.optimizer, self.reset_optimizer = self.make_optimizer(self.regularizers)
            if self.precision.scaler:
                self.optimizer.register_step_post_hook(self._note_step)
        else:
            self.reset_optimizer()
        if self.precision.scaler:
            self.scaler = torch.amp.GradScaler(self.device.type)
            self.scale = self.scaler.get_scale()  # no sync yet: it is a number still
        criterion_options = self.regularizers.criterion_options()
        self.label_smoothing = criterion_options.get("label_smoothing", 0.0)
        self.losses, self.skipped_steps, self.schedule_step = [], 0, 0

    def restore(self) -> None:
        """Put everything back to the start: the trajectory after this is that of a fresh trial.

        Weights are copied in place, so that compiled graphs stay valid.
        """
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                value.copy_(self._initial[name])
        self.model.zero_grad(set_to_none=not self.keeps_gradients)
        self._renew()
        self.device.set_random_state(self._random_state)

    @property
    def prepared_cell(self) -> dict[str, Any]:
        """Give the cell with the vocabulary that its text yielded, not the one asked for."""
        words = self.model.get_parameter("bert.embeddings.word_embeddings.weight")
        workload = {**self.cell["workload"], "vocabulary_size": words.shape[0]}
        return {**self.cell, "workload": workload}

    # One step, in the parts that the phase pass times one by one.

    def fetch(self, index: int, micro: int) -> Batch:
        """Give the next micro-batch."""
        return self.batches.at(index, micro)

    def logits(self, batch: Batch) -> torch.Tensor:
        """Give the logits [M, V] of a micro-batch's masked slots, in the cell's precision."""
        return self.run(self.compiled, batch, batch.masked_index)

    def run(
        self, model: Callable[..., Any], batch: Batch, index: torch.Tensor | None, **named: Any
    ) -> torch.Tensor:
        """Run a model on a micro-batch, in the cell's precision; of pairs, keep their logits."""
        with self.precision.context(self.device.type):
            if batch.first_index is None:
                words: torch.Tensor = model(batch.input_ids, batch.attention_mask, index, **named)
                return words
            words, self.relation = model(
                batch.input_ids,
                batch.attention_mask,
                index,
                batch.segment_ids,
                first_index=batch.first_index,
                **named,
            )
            return words

    def forward(self, batch: Batch, index: int) -> torch.Tensor:
        """Give the criterion of a micro-batch: its summed loss over the step's masked tokens."""
        loss = self.summed_loss(self, batch) / self.batches.masked_tokens[index]
        if batch.next_sentence is None:
            return loss
        pairs = len(batch.next_sentence) * self.batches.micro_batches
        return loss + sentences.summed_loss(self.relation, batch.next_sentence) / pairs

    def penalise(self, loss: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Add what regularizers add to the loss."""
        for hook in self.regularizers.loss:
            context = LossContext(
                self.model,
                batch,
                self.optimizer.param_groups,
                lambda: self.logits(batch),
                1.0 / self.batches.micro_batches,
            )
            loss = hook(loss, context)
        return loss

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a micro-batch."""
        torch.autograd.backward(loss if self.scaler is None else self.scaler.scale(loss))

    def multiplier(self) -> float:
        """Give the schedule's multiplier of the next step."""
        # burn-in may go past the last step; the timed loop never does
        return self.multipliers[min(self.schedule_step, len(self.multipliers) - 1)]

    def update(self) -> None:
        """Update the weights once."""
        set_rates(self.optimizer, self.multiplier())
        if self.scaler is None:
            for hook in self.regularizers.gradients:
                hook(self.optimizer.param_groups)
            self.optimizer.step()
            took = True
        else:
            took = self._scaled_update(self.scaler)
        if took:
            self.schedule_step += 1
            for hook in self.regularizers.after_step:
                hook(self.optimizer.param_groups)
        else:
            self.skipped_steps += 1
        self.optimizer.zero_grad(set_to_none=not self.keeps_gradients)

    def step(self, index: int) -> None:
        """Train one step: no host sync (one where an fp16 scaler needs it), no print, no file."""
        if self.whole_step is not None:
            self.whole_step(index)
            return
        total: torch.Tensor | None = None
        for micro in range(self.batches.micro_batches):
            batch = self.fetch(index, micro)
            loss = self.forward(batch, index)
            self.backward(self.penalise(loss, batch))
            total = loss.detach() if total is None else total + loss.detach()
        self.update()
        assert total is not None
        self.losses.append(total)

    def _note_step(self, *_: Any) -> None:
        self.stepped = True

    def _scaled_update(self, scaler: torch.amp.GradScaler) -> bool:
        """Update through an fp16 scaler; say whether the step was taken.

        Steps that know ``found_inf`` on the device always run, so the scale tells (one sync);
        the others are left out by the scaler itself (its sync), which the hook notices.
        """
        scaler.unscale_(self.optimizer)
        for hook in self.regularizers.gradients:
            hook(self.optimizer.param_groups)
        self.stepped = False
        if not getattr(self.optimizer, "_step_supports_amp_scaling", False):
            scaler.step(self.optimizer)
            scaler.update()
            return self.stepped
        scaler.step(self.optimizer)
        scaler.update()
        scale, before = scaler.get_scale(), self.scale  # the step's one sync
        self.scale = scale
        return scale >= before

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Evaluate on all held-out batches: no dropout, no smoothing, no penalty, averaged weights.

        The loss is the mean over masked tokens. A sample of train text is evaluated alike.
        """
        self.model.eval()
        with self.regularizers.eval_weights():
            seen = self._evaluate_on(self.held_out)
            if self.train_sample is not None:
                seen.train_loss = self._evaluate_on(self.train_sample).loss
        self.model.train()
        return seen

    def _evaluate_on(self, batches: Batches | RaggedBatches) -> Evaluation:
        loss = torch.zeros((), dtype=torch.float64, device=self.device.torch_device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device.torch_device)
        pairs = sentences.Tally()
        for index in range(batches.count):
            for micro in range(batches.micro_batches):
                batch = batches.at(index, micro)
                logits = self.logits(batch)
                loss += self.criterion(logits, batch.labels).double()
                correct += (logits.argmax(dim=-1) == batch.labels).sum()
                if batch.next_sentence is not None:
                    pairs.add(self.relation, batch.next_sentence)
        tokens = sum(batches.masked_tokens)
        figures = (loss.item() / tokens, correct.item() / tokens)
        return Evaluation(*figures, pairs.mean_loss(), pairs.accuracy())

    def drain(self) -> list[float]:
        """Hand over the losses since the last call, as numbers (syncs; never in the timed loop)."""
        if not self.losses:
            return []
        values: list[float] = torch.stack(self.losses).tolist()
        self.losses = []
        return values

    def synchronize(self) -> None:
        """Wait until the device has done all that was issued."""
        self.device.synchronize()

    def exact_zero_share(self) -> float:
        """Give the share of weights (vectors left out) that are exactly 0."""
        weights = [p for g in self.groups if g["role"] != "vector" for p in g["params"]]
        zeros: int = sum(int((weight == 0).sum()) for weight in weights)
        count: int = sum(weight.numel() for weight in weights)
        return zeros / count

    def resident_tensors(self) -> list[torch.Tensor]:
        """Give what stays in memory between steps: weights, state, and gradients that are kept."""
        kept = [p.grad for p in self.model.parameters() if p.grad is not None]
        state = [
            value
            for per_parameter in self.optimizer.state.values()
            for value in per_parameter.values()
            if isinstance(value, torch.Tensor)
        ]
        held = self.regularizers.state_tensors()
        return [*self.model.parameters(), *self.model.buffers(), *state, *held, *kept]

    def close(self) -> None:
        """Leave what kernels entered."""
        self.kernel_contexts.close()
