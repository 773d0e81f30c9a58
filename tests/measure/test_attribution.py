"""Attribution of hand-written events, and of steps whose every buffer is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from bertopt_bench.measure.attribution import (
    START,
    Change,
    Mark,
    Owned,
    attribute,
    attribute_step,
    owned_storages,
    saved_tensor_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 2**20
WEIGHT, GRADIENT, STATE = 1, 2, 3  # addresses


class Cpu:
    """The least a meter asks of a device."""

    type = "cpu"
    clock_kind = "perf_counter"

    def synchronize(self) -> None:
        """Return: the CPU has nothing in flight."""


def owners(*held: tuple[int, str, int]) -> dict[int, Owned]:
    return {address: Owned(part, size) for address, part, size in held}


LASTING = ((WEIGHT, "parameter", 100), (STATE, "optimizer_state", 50))


def made_step() -> list[Change | Mark]:
    """Make a step: batch 5, activations 30 and 20 with 7 in passing, gradients 100, temporary 60.

    At most 100 + 50 + 5 + 30 + 100 + 60 lie there, when the smaller activation is gone.
    """
    return [
        Mark(START, owners(*LASTING)),
        Change(10, 5),
        Mark("data", owners(*LASTING)),
        Change(11, 30),
        Change(12, 7),
        Change(13, 20),
        Change(12, -7),
        Mark("forward", owners(*LASTING)),
        Change(13, -20),
        Change(GRADIENT, 100),
        Change(14, 60),
        Change(14, -60),
        Change(11, -30),
        Mark("backward", owners(*LASTING, (GRADIENT, "gradient", 100))),
        Change(15, 40),
        Change(15, -40),
        Change(GRADIENT, -100),
        Change(10, -5),
        Mark("optimizer", owners(*LASTING)),
    ]


def test_parts_of_a_hand_written_step() -> None:
    """Oracle: sums by hand; weights and state are older than the first event."""
    found = attribute(made_step())

    assert found.moment == "backward"
    assert found.parts == {
        "parameter": 100, "optimizer_state": 50, "input": 5, "activation": 30, "gradient": 100,
        "temporary": 60,
    }  # fmt: skip
    assert found.peak_bytes == 345
    assert found.largest["activation"] == 50
    assert found.slack_bytes is None


def test_only_the_last_step_counts() -> None:
    """Oracle: a first step that holds a thousand times as much changes nothing."""
    first = [
        Change(e.address, 1000 * e.nbytes) if isinstance(e, Change) else e for e in made_step()
    ]

    assert attribute(first + made_step()) == attribute(made_step())


def test_an_address_that_is_given_out_again_is_another_block() -> None:
    """Oracle: by hand: the activation at 11 is gone when a temporary of 300 gets its address."""
    events = made_step()
    events[14:16] = [Change(11, 300), Change(11, -300)]
    found = attribute(events)

    assert found.moment == "optimizer"
    assert found.parts["temporary"] == 300
    assert found.parts["activation"] == 0


def test_a_release_of_what_nobody_knew_changes_nothing() -> None:
    """Oracle: the same step without it."""
    events = made_step()

    assert attribute([*events[:3], Change(99, -1000), *events[3:]]) == attribute(events)


def test_the_allocators_own_totals_give_slack_and_what_nobody_names() -> None:
    """Oracle: by hand: 1000 given out and 1600 reserved at the peak of 345."""
    events: list[Change | Mark] = [
        Change(e.address, e.nbytes, 1000, 1600) if isinstance(e, Change) else e for e in made_step()
    ]
    found = attribute(events)

    assert found.slack_bytes == 600
    assert found.parts["other"] == 1000 - 345
    assert found.peak_bytes == 1000


def buffer(mebibytes: int) -> torch.Tensor:
    return torch.empty(mebibytes * MIB, dtype=torch.uint8)


def test_every_buffer_of_a_real_step_is_found() -> None:
    """Oracle: sizes by hand: 3 of weights, 4 of activations, 3 of gradients, 8 in passing."""
    weights, held = buffer(3), {}

    def named() -> dict[int, Owned]:
        return owned_storages({"gradient": held.values(), "parameter": [weights]})

    def step(end: Callable[[str], None]) -> None:
        end("data")
        activations = buffer(4)
        end("forward")
        held["gradient"] = buffer(3)
        in_passing = buffer(8)
        del in_passing, activations
        end("backward")
        held.clear()
        end("optimizer")

    found = attribute_step(step, named, Cpu())

    assert found.moment == "backward"
    assert {part: size / MIB for part, size in found.parts.items() if size} == {
        "parameter": 3, "activation": 4, "gradient": 3, "temporary": 8,
    }  # fmt: skip


def test_saved_tensors_are_counted_once_and_without_what_is_known() -> None:
    """Oracle: by hand: a product of two saves both, of which one is the weight.

    Its square saves the product, once for both factors.
    """
    weight = torch.ones(16, 16, requires_grad=True)
    inputs = torch.ones(8, 16)

    def forward() -> torch.Tensor:
        made = inputs.clone() @ weight
        return (made * made).sum()

    assert saved_tensor_bytes(forward, [weight], Cpu()) == 4 * (8 * 16 + 8 * 16)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpus_parts_sum_to_its_allocators_peak() -> None:
    """Oracle: torch.cuda.max_memory_allocated over the same step."""

    class Cuda(Cpu):
        type = "cuda"

        def synchronize(self) -> None:
            torch.cuda.synchronize()

    model = torch.nn.Linear(512, 512, device="cuda")
    inputs = torch.ones(256, 512, device="cuda")

    def step(end: Callable[[str], None]) -> None:
        end("data")
        loss = model(inputs).square().sum()
        end("forward")
        loss.backward()
        end("backward")
        model.zero_grad(set_to_none=True)
        end("optimizer")

    found = attribute_step(step, lambda: owned_storages({"parameter": model.parameters()}), Cuda())
    torch.cuda.reset_peak_memory_stats()
    step(lambda _: None)
    torch.cuda.synchronize()

    assert found.peak_bytes == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.02)
    assert found.slack_bytes is not None
    assert found.slack_bytes >= 0
