"""What the command ``challenge`` does: reproduce, tune, run, and join to the published records."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench import catalogue
from bertopt_bench.dispatch.preparing import ask_capabilities
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.labels import model_label
from bertopt_bench.matrix.protocols import FOLDER, check_text, read_protocol
from bertopt_bench.matrix.spec import load
from bertopt_bench.matrix.tuned import toml, write_matrix
from bertopt_bench.matrix.tuning import REPORT_PART, read_tuning
from bertopt_bench.planning import plan_tuning
from bertopt_bench.stats import challenge as joining
from bertopt_bench.stats.comparisons import WORDS
from bertopt_bench.tuning import TUNED, tune

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.matrix.protocols import Protocol
    from bertopt_bench.results.record import Record
    from bertopt_bench.results.tables import Results
    from bertopt_bench.stats.challenge import Reproduction, Run, Standing

NEWCOMER_DEFAULT = " at its default"


@dataclass(frozen=True)
class Challenge:
    """What a page of a challenge shows: who, against what, reproduced how, where all stand."""

    newcomer: str
    protocol: Protocol
    reproduction: Reproduction
    targets: tuple[float, ...]
    standings: list[Standing]
    records: Mapping[str, Mapping[int, Record]]
    sessions: tuple[Any, ...]


def challenge(
    optimizer: str,
    protocol_name: str,
    *,
    records: Path | None = None,
    results: Path | None = None,
    page: Path | None = None,
    plan_only: bool = False,
) -> int:
    """Tune and run one optimizer under a protocol and join it to the published records.

    Gives 3 where the published baseline does not reproduce here: then nothing is joined.

    Raises:
        UserError: no such protocol or optimizer, no published records, another text.
    """
    from bertopt_bench.report.challenge import write_challenge

    protocol = read_protocol(protocol_name)
    newcomer = catalogue.find("optimizer", optimizer).name
    folder = results or Path("results") / f"challenge-{protocol.name}-{_plain(newcomer)}"
    published = None if plan_only else _published(protocol, records)
    matrix = _write(folder / "challenge.toml", _tuning_matrix(protocol, newcomer))
    if published is None:
        plan_tuning(matrix)
        return 0
    _check_runs_here(matrix, newcomer)
    base = _baseline_of(published, protocol)
    again = _reproduce(protocol, base, folder)
    sys.stdout.write(told_reproduction(again, protocol) + "\n")
    if not again.holds:
        return 3
    tune(matrix, results=folder / "tuning", page=folder / "tuning.html", whole=_this_command())
    chosen = folder / "tuning" / TUNED  # another choice, after another tuning, is another matrix
    mine = _run(chosen, folder / f"run-{load(chosen).digest}")
    found = _join(protocol, newcomer, published, mine, again)
    lines, page = told(found), page or folder / "challenge.html"
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    own = [line for line in lines if "(this challenge)" in line]
    write_challenge(found, page, [told_reproduction(again, protocol), *own])
    sys.stdout.write(f"results: {folder}\npage: {page}\n")
    return 0


def _this_command() -> str:
    return shlex.join(["bertopt-bench", *sys.argv[1:]])


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "-", name)


def _write(file: Path, text: str) -> Path:
    from bertopt_bench.results.store import told as safely
    from bertopt_bench.results.store import write_whole

    with safely(file):
        write_whole(file, text)
    return file


def _tuning_matrix(protocol: Protocol, newcomer: str) -> str:
    """Write the protocol with the newcomer as its one arm: same budget, seeds, text, steps."""
    document = dict(protocol.document)
    known = document["tuning"]["arms"]
    own = next((arm for arm in known.values() if _optimizer_of(arm) == newcomer), None)
    arm = own or {"optimizer": newcomer, **protocol.newcomer}
    tuning = {**document["tuning"], "arms": {newcomer: arm}, "report_defaults": [newcomer]}
    document |= {"tuning": tuning, "name": f"{protocol.name}-{_plain(newcomer)}"}
    document["protocol"] = {"name": protocol.name, "sha256": protocol.sha256}
    head = f"# Written by `bertopt-bench challenge` from protocol {protocol.name}; do not edit.\n"
    return head + "".join(f"{key} = {toml(value)}\n" for key, value in document.items())


def _check_runs_here(matrix: Path, newcomer: str) -> None:
    """Refuse an optimizer that this machine or installation cannot run, before anything runs."""
    for arm in read_tuning(matrix, (), ask_capabilities()).arms:
        if arm.cell.skip is not None:
            raise UserError(f"optimizer '{newcomer}' cannot run here: {arm.cell.skip}.")


def _optimizer_of(arm: Mapping[str, Any]) -> str:
    chosen = arm["optimizer"]
    return str(chosen["name"] if isinstance(chosen, dict) else chosen)


def _published(protocol: Protocol, records: Path | None) -> Results:
    """Read the protocol's published records and hold them to its hash.

    Raises:
        UserError: there are none, or they are of another protocol or text.
    """
    from bertopt_bench.results.reading import SESSIONS
    from bertopt_bench.results.tables import load_results

    folder = records or _beside(protocol)
    if not (folder / SESSIONS).is_file():
        raise UserError(
            f"protocol {protocol.name} has no records in {folder}. Name where they are with "
            f"--records DIR, or make them: bertopt-bench tune {protocol.file}, then the command "
            "that it prints."
        )
    loaded = load_results(folder)
    if not all(protocol.sha256 in session.matrix.get("source", "") for session in loaded.sessions):
        raise UserError(
            f"{folder} holds records of another protocol than {protocol.name} with hash "
            f"{protocol.sha256[:16]}: they cannot be joined."
        )
    expected = _reported_workload(protocol)
    for record in loaded.records:
        if record.cell["workload"] != expected:
            raise UserError(
                f"{folder} holds records of another workload than {protocol.name}'s (cell "
                f"{record.cell_id}): run with --set, or by another version. They cannot be joined."
            )
        check_text(protocol.name, protocol.text_sha256, record.text_sha256, f"of {folder}")
    return loaded


def _reported_workload(protocol: Protocol) -> dict[str, Any]:
    """Give the workload that every published record has, defaults and all."""
    content = read_tuning(protocol.file).arms[0].cell.content["workload"]
    return {**content, "held_out_part": REPORT_PART}


def _beside(protocol: Protocol) -> Path:
    """Give where a checkout has its protocol's records; a file elsewhere has none there."""
    above = protocol.file.resolve().parents
    return above[min(len(FOLDER.parts), len(above) - 1)] / "results" / "protocols" / protocol.name


def _baseline_of(published: Results, protocol: Protocol) -> dict[int, Record]:
    """Give the published records of the baseline by seed, which all that follows stands on.

    Raises:
        UserError: a seed is missing or has no end, so that no band or target can be told.
    """
    base = arms_of(published.counted).get(protocol.baseline, {})
    lacking = [seed for seed in protocol.document["seeds"] if seed not in base]
    if lacking:
        raise UserError(
            f"the records of {protocol.name} have no seed {', '.join(map(str, lacking))} of "
            f"{protocol.baseline}: they are not complete. Run the missing trials first."
        )
    runs = _runs(base)
    try:
        joining.baseline_targets(runs, protocol.targets_at)
        joining.reproduction(
            runs, protocol.reproduce_seed, next(iter(runs.values())), identical=True
        )
    except ValueError as error:
        raise UserError(
            f"the records of {protocol.name} cannot be joined: {error}. Run the baseline's trials "
            "that did not finish again."
        ) from error
    return base


def arms_of(records: Sequence[Record]) -> dict[str, dict[int, Record]]:
    """Sort records by arm and seed; a cell that was not tuned is its optimizer at its default."""
    found: dict[str, dict[int, Record]] = {}
    names = {_searched(r): r.tuning.arm for r in records if r.tuning is not None}
    for record in records:
        name = record.tuning.arm if record.tuning else names.get(_searched(record))
        name = name or record.cell["optimizer"]["name"]
        label = name if record.tuning else f"{name}{NEWCOMER_DEFAULT}"
        found.setdefault(label, {})[record.seed] = record
    return found


def _searched(record: Record) -> tuple[str, ...]:
    """Name the optimizer and regularizers of a cell, whatever their options."""
    parts = [record.cell["optimizer"], *record.cell["regularizer"]]
    return tuple(part["name"] for part in parts)


def as_run(record: Record) -> Run:
    """Give a record's curve."""
    return joining.Run(
        tuple(seen.step for seen in record.evaluations),
        tuple(seen.loss for seen in record.evaluations),
        record.cell["workload"]["steps"],
        lost=record.status != "ok",
    )


def _runs(arm: Mapping[int, Record]) -> dict[int, Run]:
    return {seed: as_run(record) for seed, record in arm.items()}


def _reproduce(protocol: Protocol, base: Mapping[int, Record], folder: Path) -> Reproduction:
    """Run one published seed of the baseline again and hold it against the published ones.

    Raises:
        UserError: this machine's text is another.
    """
    seed = protocol.reproduce_seed
    there = base[seed]
    kept = {key: protocol.document[key] for key in ("allow", "timing") if key in protocol.document}
    document = {
        "name": f"{protocol.name}-reproduction",
        "seeds": [seed],
        **kept,
        "workload": dict(there.cell["workload"]),
    }
    matrix = _write(folder / "reproduction.toml", write_matrix(document, [there.cell], []))
    here = _run(matrix, folder / "reproduction").counted[0]
    for what in ("text_sha256", "evaluation_sha256", "batches_sha256"):
        then, now = getattr(there, what), getattr(here, what)
        if then != now:
            raise UserError(
                f"protocol {protocol.name}: the {what.partition('_')[0]} of this machine is not "
                f"the published one ({str(now)[:12]}, published {str(then)[:12]}), so that no "
                "loss can be joined. python_docs differs by Python's patch version, batches by "
                "the version of tokenizers: take those of the published session."
            )
    identical = bool(here.losses) and here.losses == there.losses
    return joining.reproduction(_runs(base), seed, as_run(here), identical=identical)


def _run(matrix_file: Path, folder: Path) -> Results:
    """Run what is missing of a matrix and read it all."""
    from bertopt_bench.dispatch.progress import open_display
    from bertopt_bench.dispatch.running import run_session
    from bertopt_bench.results.store import ResultsFolder
    from bertopt_bench.results.tables import load_results

    matrix = load(matrix_file)
    with open_display() as display, ResultsFolder.open(folder, matrix.digest) as store:
        try:
            run_session(matrix, store, display)
        except KeyboardInterrupt:
            display.say(f"stopped; what is done is kept. Continue with:\n  {_this_command()}")
            sys.exit(130)
    return load_results(folder)


def _join(
    protocol: Protocol, newcomer: str, published: Results, mine: Results, again: Reproduction
) -> Challenge:
    """Put the newcomer's runs beside the published ones; one that was published is set apart."""
    own = arms_of(mine.counted)
    shipped = arms_of(published.counted)
    records = {**shipped, **{f"{name} (this challenge)": arm for name, arm in own.items()}}
    arms = {name: _runs(arm) for name, arm in records.items()}
    targets = joining.baseline_targets(arms[protocol.baseline], protocol.targets_at)
    return Challenge(
        newcomer=newcomer,
        protocol=protocol,
        reproduction=again,
        targets=targets,
        standings=joining.standings(arms, protocol.baseline, targets),
        records=records,
        sessions=(*published.sessions, *mine.sessions),
    )


def told_reproduction(again: Reproduction, protocol: Protocol) -> str:
    """Say whether the published baseline was reproduced here."""
    who = f"seed {again.seed} of tuned {protocol.baseline} on {model_of(protocol)}"
    if again.identical:
        return f"Reproduced bit for bit: {who} ends at {again.again:.4f} here as published"
    band = f"{again.low:.4f} to {again.high:.4f}"
    if again.holds:
        return f"Reproduced: {who} ends at {again.again:.4f} here, within {band}"
    return (
        f"Not reproduced: {who} ends at {again.again:.4f} here, outside of {band}, where a "
        f"further seed of the published runs lies with 99 % confidence (published: "
        f"{again.published:.4f}). Nothing is joined."
    )


def model_of(protocol: Protocol) -> str:
    """Name the model, which every sentence names."""
    model = protocol.document["workload"]["model"]
    return f"BERT {model if isinstance(model, str) else model_label(model)}"


def told(found: Challenge) -> list[str]:
    """Say a line an arm where it stands against the baseline; the newcomer's first."""
    return [
        sentence(one, found)
        for one in sorted(found.standings, key=lambda s: "(this challenge)" not in s.arm)
    ]


def sentence(one: Standing, found: Challenge) -> str:
    """Say where an arm ends, and how far from the baseline."""
    model, n = model_of(found.protocol), len(one.finals)
    where = f"{one.arm} on {model}: held-out loss {one.median:.4f} (median of {n} seeds)"
    if one.arm == found.protocol.baseline:
        return f"{where}, the baseline"
    if one.finding is None or one.finding.estimate is None:
        why = one.finding.reason if one.finding else "it was not compared"
        return f"{where}; to tuned {found.protocol.baseline} there is no difference: {why}"
    finding, words = one.finding, WORDS["loss"]
    reach = ""
    if finding.low is not None and finding.high is not None:
        reach = f" [{finding.low:+.4f}, {finding.high:+.4f}]"
    verdict = finding.verdict
    if verdict not in words:
        verdict = "equivalent" if verdict == "equivalent" else "the data cannot tell"
        verdict = f"{verdict} ({finding.reason})"
    return f"{where}, {finding.estimate:+.4f}{reach} to tuned {found.protocol.baseline}: {verdict}"
