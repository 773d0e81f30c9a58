"""Say what to change on a machine for better numbers: each rule looks at one fact.

A rule is silent where the system does not tell the fact: nothing is guessed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bertopt_bench.measure.suitability import STEAL_SHARE, mean_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LOAD_A_CORE = 0.5
FOREIGN_SHARE = 0.05  # of all CPU time, in a second in which nothing of ours runs
STEAL_SEEN = 0.001  # far below what makes a session too noisy, and still a sign of neighbours
WAITING_SHARE = 0.10
CLOCK_SPREAD = 0.02  # a clock that varies less holds whatever turbo is set to
SLOW_CLOCKS = ("hpet", "acpi_pm", "jiffies", "refined-jiffies")
_CPUS = "/sys/devices/system/cpu"
TUNE_ALL = "`sudo python -m pyperf system tune` does this and more at once"


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to change, or (a note) to know: what was seen, why it matters, what to do."""

    topic: str
    fact: str
    why: str
    do: str
    kind: Literal["change", "note"] = "change"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a machine: its description, an idle moment, and blocks that were timed."""

    machine: Mapping[str, Any]
    """What `describe_machine` gave."""
    idle: Mapping[str, Any] = field(default_factory=dict)
    """What `Disturbance.stop` gave after a moment in which nothing of ours ran."""
    blocks: Sequence[Mapping[str, Any]] = ()
    """Mappings with a `disturbance`; none where nothing was timed."""

    @property
    def cores(self) -> int:
        """Count the cores that this process may use."""
        return len(self.machine.get("affinity") or ()) or self.machine.get("logical_cores") or 1


def machine_advice(facts: Facts) -> list[Advice]:
    """Give what every rule has to say, changes first, the gravest first."""
    said = [advice for rule in _RULES if (advice := rule(facts)) is not None]
    return sorted(said, key=lambda advice: advice.kind == "note")


def _load(facts: Facts) -> Advice | None:
    load = (facts.machine.get("load") or [None])[0]
    foreign = facts.idle.get("foreign_cpu_share")
    busy = load is not None and load > LOAD_A_CORE * facts.cores
    if not busy and (foreign is None or foreign <= FOREIGN_SHARE):
        return None
    seen = [f"the load average is {load:.2f} on {facts.cores} cores"] if load is not None else []
    if foreign is not None:
        seen.append(f"in an idle moment other processes used {foreign:.1%} of the CPU time")
    return Advice(
        "other processes",
        "; ".join(seen),
        "they take cores, caches and memory bandwidth from the steps that are timed",
        "end or pause what is on top of: ps -eo pcpu,pid,comm --sort=-pcpu | head",
    )


def _steal(facts: Facts) -> Advice | None:
    boot = facts.machine.get("steal_share_since_boot")
    timed = mean_of(facts.blocks, "steal_share")
    idle = facts.idle.get("steal_share")
    grave = any(share is not None and share > STEAL_SEEN for share in (boot, timed))
    if not grave and (idle is None or idle <= STEAL_SHARE):
        return None
    named = {"since boot": boot, "while timing": timed, "in an idle moment": idle}
    shares = [f"{share:.2%} {when}" for when, share in named.items() if share is not None]
    return Advice(
        "steal",
        f"the hypervisor gave CPU time of this machine to others: {', '.join(shares)}",
        "a stolen core stops in the middle of a step, and every thread of the step waits for it",
        "use an instance with dedicated cores or a bare-metal machine, or measure at a quieter "
        "hour; a burstable instance that has used up its credits steals all the time",
    )


def _governor(facts: Facts) -> Advice | None:
    governor = facts.machine.get("governor")
    if governor is None or governor == "performance":
        return None
    return Advice(
        "frequency governor",
        f"the governor is '{governor}'",
        "it lowers the clock between blocks and raises it within them, so that a step's time "
        "depends on what ran before it",
        f"echo performance | sudo tee {_CPUS}/cpu*/cpufreq/scaling_governor ({TUNE_ALL})",
    )


def _turbo(facts: Facts) -> Advice | None:
    if not facts.machine.get("turbo"):
        return None
    noted = (block.get("disturbance") or {} for block in facts.blocks)
    clocks = [mhz for one in noted if (mhz := one.get("cpu_mhz"))]
    spread = (max(clocks) - min(clocks)) / min(clocks) if len(clocks) > 1 else None
    if spread is not None and spread <= CLOCK_SPREAD:
        return None
    varying = "how far it varies was not seen"
    if spread is not None:
        varying = f"it went from {min(clocks):.0f} to {max(clocks):.0f} MHz while timing"
    if facts.machine.get("frequency_driver") in {"intel_pstate", "intel_cpufreq"}:
        command = f"echo 1 | sudo tee {_CPUS}/intel_pstate/no_turbo"
    else:
        command = f"echo 0 | sudo tee {_CPUS}/cpufreq/boost"
    return Advice(
        "turbo",
        f"the clock may exceed its nominal rate; {varying}",
        "how long it does depends on heat and on the other cores, and drifts within minutes",
        f"{command} (slower, but steady)",
    )


def _threads_of_a_core(facts: Facts) -> Advice | None:
    if facts.machine.get("simultaneous_threads") != "1":
        return None
    return Advice(
        "simultaneous multithreading",
        f"{facts.machine.get('physical_cores')} cores run "
        f"{facts.machine.get('logical_cores')} hardware threads",
        "two threads of one core share its arithmetic units: a step's time then depends on which "
        "places its threads got",
        f"echo off | sudo tee {_CPUS}/smt/control, or give a thread a core: "
        f"OMP_NUM_THREADS={facts.machine.get('physical_cores')} OMP_PLACES=cores",
    )


def _quota(facts: Facts) -> Advice | None:
    quota = facts.machine.get("cpu_quota")
    held_back = sum(
        (b.get("disturbance") or {}).get("throttled_periods") or 0 for b in facts.blocks
    )
    if quota is None or (quota == int(quota) and not held_back):
        return None
    times = f"; it held back {held_back:.0f} times while timing" if held_back else ""
    whole = max(1, math.floor(quota))
    return Advice(
        "CPU quota",
        f"the control group may use {quota:g} cores{times}",
        "what exceeds the quota stops until the next period (0.1 s): whole steps wait",
        f"ask for whole cores and as many threads: docker run --cpuset-cpus=0-{whole - 1} "
        f"(rather than --cpus), in Kubernetes equal integer requests and limits; here at least "
        f"OMP_NUM_THREADS={whole}",
    )


def _affinity(facts: Facts) -> Advice | None:
    affinity, quota = facts.machine.get("affinity"), facts.machine.get("cpu_quota")
    if not affinity or quota is None or len(affinity) >= quota:
        return None
    return Advice(
        "affinity",
        f"this process may run on {len(affinity)} cores, and its quota pays for {quota:g}",
        "the threads crowd on fewer cores than they are given",
        "start without taskset, or with more cores: taskset -c "
        f"0-{math.ceil(quota) - 1} bertopt-bench ...",
    )


def _swap(facts: Facts) -> Advice | None:
    swap = facts.machine.get("swap_bytes")
    if not swap:
        return None
    return Advice(
        "swap",
        f"{swap / 2**30:.1f} GiB of swap are on",
        "a page that has to come back from disk takes as long as a whole step",
        "sudo swapoff -a (sudo swapon -a afterwards)",
    )


def _huge_pages(facts: Facts) -> Advice | None:
    if facts.machine.get("transparent_huge_pages") != "always":
        return None
    return Advice(
        "transparent huge pages",
        "transparent huge pages are 'always'",
        "the kernel joins pages behind the program's back, at moments and places of its own "
        "choice: processes of the same code get different speeds",
        "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
    )


def _addresses(facts: Facts) -> Advice | None:
    if facts.machine.get("addresses_randomised") is not False:
        return None
    return Advice(
        "address-space randomisation",
        "addresses are not randomised: every process gets the same layout",
        "a layout is lucky or not, by several per cent; replicates that share one repeat its luck "
        "instead of averaging over it",
        "echo 2 | sudo tee /proc/sys/kernel/randomize_va_space, and start without `setarch -R`",
    )


def _nice(facts: Facts) -> Advice | None:
    nice = facts.machine.get("nice")
    if nice is None or nice <= 0:
        return None
    return Advice(
        "nice",
        f"this process runs at nice {nice}",
        "anything else that wants a core gets it first",
        "start it without nice, or raise it: sudo renice -n 0 -p $$",
    )


def _battery(facts: Facts) -> Advice | None:
    if not facts.machine.get("on_battery"):
        return None
    return Advice(
        "battery",
        "the machine runs from its battery",
        "it limits power, and more so as the battery empties",
        "plug it in",
    )


def _profile(facts: Facts) -> Advice | None:
    profile = facts.machine.get("platform_profile")
    if profile is None or profile == "performance":
        return None
    return Advice(
        "platform profile",
        f"the platform profile is '{profile}'",
        "the firmware trades speed for quiet, by heat and by time",
        "powerprofilesctl set performance, or "
        "echo performance | sudo tee /sys/firmware/acpi/platform_profile",
    )


def _clock_source(facts: Facts) -> Advice | None:
    source = facts.machine.get("clock_source")
    if source not in SLOW_CLOCKS:
        return None
    return Advice(
        "clock source",
        f"the kernel keeps time by '{source}'",
        "reading it takes a microsecond or more and goes through a shared device",
        "echo tsc | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource "
        "(the kernel's log says why it gave tsc up)",
    )


def _numa(facts: Facts) -> Advice | None:
    nodes = facts.machine.get("numa_nodes") or 1
    if nodes < 2 or facts.cores < (facts.machine.get("logical_cores") or 0):
        return None
    return Advice(
        "NUMA",
        f"threads and memory may lie on any of {nodes} nodes",
        "memory of another node is slower, and where a page lies is decided by chance",
        "numactl --cpunodebind=0 --membind=0 bertopt-bench ...",
    )


def _threads(facts: Facts) -> Advice | None:
    variables = facts.machine.get("variables") or {}
    asked = variables.get("OMP_NUM_THREADS", "")
    bound = variables.get("OMP_PROC_BIND", "").lower()
    if asked.isdecimal() and int(asked) > facts.cores:
        fact = f"OMP_NUM_THREADS={asked} on {facts.cores} cores"
        why = "threads that share a core wait for each other at the end of every operation"
        do = f"export OMP_NUM_THREADS={facts.cores}, or unset it"
    elif bound == "false":
        fact = "OMP_PROC_BIND=false"
        why = "threads wander between cores and lose their caches; we bind them if not told else"
        do = "unset OMP_PROC_BIND"
    else:
        return None
    return Advice("thread variables", fact, why, do)


def _waiting(facts: Facts) -> Advice | None:
    pressure = facts.machine.get("pressure") or {}
    waiting = {
        key: share
        for key in ("memory", "io")
        if (share := pressure.get(key)) is not None and share > WAITING_SHARE
    }
    if not waiting:
        return None
    shares = ", ".join(f"{key} {share:.0%}" for key, share in waiting.items())
    return Advice(
        "pressure",
        f"in the last ten seconds tasks waited for: {shares} of the time",
        "the machine is short of memory or busy with its disk",
        "see who: sudo iotop -o, or ps -eo rss,pid,comm --sort=-rss | head",
    )


def _virtual(facts: Facts) -> Advice | None:
    seen = facts.machine.get("virtualisation") or {}
    if not seen.get("hypervisor"):
        return None
    hidden = [
        name
        for name, key in (("governor", "governor"), ("turbo", "turbo"), ("clock", "cpu_mhz_now"))
        if facts.machine.get(key) is None
    ]
    product = f" ({seen['product']})" if seen.get("product") else ""
    not_visible = f"; not visible from inside: {', '.join(hidden)}" if hidden else ""
    return Advice(
        "virtual machine",
        f"this is a virtual machine{product}{not_visible}",
        "neighbours on the host share caches, memory bandwidth and the clock, which steal time "
        "does not show; step times drift by tens of per cent within minutes",
        "believe paired differences (duel) and no absolute time; for those take a dedicated or "
        "bare-metal machine",
        kind="note",
    )


_RULES = (
    _load,
    _steal,
    _quota,
    _battery,
    _governor,
    _turbo,
    _profile,
    _swap,
    _threads,
    _affinity,
    _threads_of_a_core,
    _nice,
    _addresses,
    _huge_pages,
    _numa,
    _clock_source,
    _waiting,
    _virtual,
)
