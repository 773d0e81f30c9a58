"""Say what a step's memory is for, byte by byte, at the moment when it holds the most.

The profiler tells of each block that the allocator gives out or takes back: where it lies, and how
large it is. What a block is for follows from who holds it at the end of a phase: whoever steps
names the storages of weights, gradients and state then; what the forward pass made and left for
the backward pass are activations. The rest is temporary.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from bertopt_bench.measure.clock import MeasuredDevice

INPUT, ACTIVATION, TEMPORARY, OTHER = "input", "activation", "temporary", "other"
"""Parts that are found; all others are named by whoever steps.

``other`` is what the allocator held before the step and nobody names (a GPU's batches and
workspaces, the rounding of blocks); the CPU's allocator does not tell it.
"""

START = "start"
_MARK = "bertopt_bench: mark "


@dataclass(frozen=True, slots=True)
class Owned:
    """What the storage at an address is for, and its size."""

    part: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class Change:
    """A block given out (positive bytes) or taken back (negative).

    ``allocated`` and ``reserved`` are the allocator's totals after it, where it keeps some.
    """

    address: int
    nbytes: int
    allocated: int = 0
    reserved: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """The end of a phase: its name, and what the storages at addresses are for by now.

    ``data`` ends what fetches a batch, ``forward`` what leaves activations behind. Each step begins
    with ``START``.
    """

    phase: str
    owners: Mapping[int, Owned]


@dataclass(frozen=True, slots=True)
class Attribution:
    """The bytes of each part when a step held the most, and the most that each part held.

    ``moment`` is the phase of that moment. ``slack_bytes`` is what the allocator had reserved then
    beyond what it had given out; None where it does not say.
    """

    moment: str
    parts: Mapping[str, int]
    largest: Mapping[str, int]
    slack_bytes: int | None

    @property
    def peak_bytes(self) -> int:
        """Give the sum of the parts."""
        return sum(self.parts.values())


@dataclass(slots=True)
class _Block:
    nbytes: int
    born: int  # index of its event; -1 for what was there before
    died: float = math.inf
    part: str = TEMPORARY


@dataclass(slots=True)
class _History:
    """Blocks as they come and go; ``touched`` is the block that each event is about."""

    blocks: list[_Block] = field(default_factory=list)
    live: dict[int, _Block] = field(default_factory=dict)
    touched: list[_Block | None] = field(default_factory=list)
    phase_began: int = 0

    def change(self, index: int, change: Change) -> None:
        block: _Block | None
        if change.nbytes > 0:
            block = _Block(change.nbytes, index)
            self.live[change.address] = block
            self.blocks.append(block)
        else:  # one that nobody has named and that is older than the trace stays unknown
            block = self.live.pop(change.address, None)
            if block is not None:
                block.died = index
        self.touched.append(block)

    def mark(self, index: int, mark: Mark) -> None:
        made = {"data": INPUT, "forward": ACTIVATION}.get(mark.phase)
        for block in self.live.values():
            if made and block.part == TEMPORARY and block.born >= self.phase_began:
                block.part = made
        for address, owned in mark.owners.items():
            held = self.live.get(address)
            if held is None:
                held = self.live[address] = _Block(owned.nbytes, -1)
                self.blocks.append(held)
            held.part = owned.part
        self.touched.append(None)
        self.phase_began = index + 1


def attribute_step(
    step: Callable[[Callable[[str], None]], None],
    owners: Callable[[], Mapping[int, Owned]],
    device: MeasuredDevice,
) -> Attribution:
    """Run `step` twice under torch's profiler and attribute the memory of the second run.

    The first run is there for the allocator (see `tracing.trace_step`).

    Args:
        step: one step; it calls what it is given with the name of each phase that has ended, in
            turn ``data``, ``forward`` and others.
        owners: gives what the storages that somebody holds right now are for, by address.
        device: whose allocator is watched.
    """
    # Kineto announces every start and stop on stderr; a level above its last one silences that.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from torch.profiler import ProfilerActivity, profile, record_function

    marks: list[Mark] = []

    def mark(phase: str) -> None:
        marks.append(Mark(phase, owners()))
        with record_function(f"{_MARK}{len(marks) - 1}"):
            pass

    # The host allocates for every device, so that no kernel needs to be traced.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for _ in range(2):
            mark(START)
            step(mark)
            device.synchronize()
    results: Any = profiler.profiler and profiler.profiler.kineto_results
    return attribute(_events(results.experimental_event_tree(), marks, device.type))


def attribute(events: Sequence[Change | Mark]) -> Attribution:
    """Attribute the memory of the last step in a list of events, which are in the order of time."""
    history = _History()
    for index, event in enumerate(events):
        if isinstance(event, Mark):
            history.mark(index, event)
        else:
            history.change(index, event)
    begin = max(i for i, e in enumerate(events) if isinstance(e, Mark) and e.phase == START)
    held = Counter[str]()
    for block in history.blocks:
        if block.born < begin < block.died:
            held[block.part] += block.nbytes
    at, parts, largest = begin, dict(held), Counter(held)
    most = sum(held.values())
    for index in range(begin + 1, len(events)):
        block_or_none = history.touched[index]
        if block_or_none is None:
            continue
        block = block_or_none
        held[block.part] += block.nbytes if block.born == index else -block.nbytes
        largest[block.part] = max(largest[block.part], held[block.part])
        if (total := sum(held.values())) > most:
            at, parts, most = index, dict(held), total
    return _described(events, at, parts, largest)


def _described(
    events: Sequence[Change | Mark], at: int, parts: dict[str, int], largest: Mapping[str, int]
) -> Attribution:
    """Name the moment; add what the allocator itself says of it."""
    following = (event for event in events[at + 1 :] if isinstance(event, Mark))
    change, slack = events[at], None
    largest = dict(largest)
    if isinstance(change, Change) and change.reserved:
        slack = change.reserved - change.allocated
        parts[OTHER] = largest[OTHER] = max(0, change.allocated - sum(parts.values()))
    return Attribution(next((m.phase for m in following), "end"), parts, largest, slack)


def _events(roots: Iterable[Any], marks: Sequence[Mark], device_type: str) -> list[Change | Mark]:
    """Flatten the profiler's tree to what changes a device's memory, in the order of time."""
    from torch._C._profiler import _EventType

    found: list[tuple[int, int, Change | Mark]] = []
    stack = list(roots)[::-1]
    while stack:
        event = stack.pop()
        stack.extend(event.children[::-1])
        name: str = event.name
        # The count keeps the tree's order between events of the same nanosecond.
        if name.startswith(_MARK):
            mark = marks[int(name.removeprefix(_MARK))]
            found.append((event.start_time_ns, len(found), mark))
        elif event.tag == _EventType.Allocation:
            seen = event.extra_fields
            if seen.device.type == device_type:
                totals = (seen.total_allocated, seen.total_reserved)
                change = Change(seen.ptr, seen.alloc_size, *totals)
                found.append((event.start_time_ns, len(found), change))
    return [event for _, _, event in sorted(found, key=lambda one: one[:2])]


def owned_storages(named: Mapping[str, Iterable[Tensor]]) -> dict[int, Owned]:
    """Give what storages are for by address, of tensors by part; the last part named wins."""
    owners: dict[int, Owned] = {}
    for part, tensors in named.items():
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage.nbytes():
                owners[storage.data_ptr()] = Owned(part, storage.nbytes())
    return owners


def saved_tensor_bytes(
    forward: Callable[[], object], without: Iterable[Tensor], device: MeasuredDevice
) -> int:
    """Run a forward pass and count what autograd saves for the backward pass.

    Each storage counts once, and none of the tensors in `without` (weights, the batch). What a
    function keeps by other means, and what activation checkpoints keep, is not seen.

    Source: torch.autograd.graph.saved_tensors_hooks.
    """
    from torch.autograd.graph import saved_tensors_hooks

    known = set(owned_storages({OTHER: without}))
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.device.type == device.type and storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = forward()  # held until all is counted, so that no address comes twice
    del kept
    return sum(sizes.values())
