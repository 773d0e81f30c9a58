"""Protocols: matrices that never change, so that results can be published against one another.

A protocol is a matrix with ``[tuning]`` and ``[protocol]``. Its hash covers everything in it but
comments and the description; ``protocols.lock`` beside the files holds the hashes, and under
``NAME:declared`` those of the points and seeds that its words come to, which depend on defaults.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.matrix.cells import evaluation_steps
from bertopt_bench.matrix.identity import canonical_json
from bertopt_bench.matrix.keys import WORKLOAD, Key, Place
from bertopt_bench.matrix.spec import read_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LOCK, DECLARED = "protocols.lock", ":declared"
FOLDER = Path("benchmarks") / "protocols"
_KEYS: Mapping[str, Key] = {
    "version": Key("int", least=1),
    "baseline": Key("str"),
    "targets_at": Key("list"),
    "reproduce_seed": Key("int", least=0),
    "text_sha256": Key("str"),
    "newcomer": Key("dict"),
}
_SHARE = Key("float", above=0, most=1)


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol: its file, its hash, and what a newcomer is held to.

    ``targets_at`` are shares of the steps: a target is the held-out loss that the baseline has
    there: the median over the report seeds, at the end what three quarters of them reach.
    ``newcomer`` is the arm of an optimizer that is not among the protocol's own, without its name.
    """

    file: Path
    name: str
    sha256: str
    baseline: str
    targets_at: tuple[float, ...]
    reproduce_seed: int
    text_sha256: str
    newcomer: Mapping[str, Any]
    document: Mapping[str, Any]


def protocol_hash(document: Mapping[str, Any]) -> str:
    """Hash what a protocol says: everything in the file but comments and the description."""
    said = {key: value for key, value in document.items() if key != "description"}
    return hashlib.sha256(canonical_json(said).encode()).hexdigest()


def read_lock(folder: Path) -> dict[str, str]:
    """Read the hashes of a folder's protocols, by name.

    Raises:
        UserError: there is no such file, or a line is no name with a hash.
    """
    file = folder / LOCK
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}. Name a protocol of a checkout.") from error
    found = {}
    for number, line in enumerate(lines, start=1):
        words = line.split("#")[0].split()
        if len(words) == 2:
            found[words[1]] = words[0]
        elif words:
            raise UserError(f"{file}, line {number}: is no hash with a name; restore the file.")
    return found


def read_protocol(given: str | Path) -> Protocol:
    """Read a protocol, named as ``tiny-v1`` or by its file, and hold it to its lock.

    Raises:
        UserError: no such protocol, a mistake in it, or one that is not as it was published.
    """
    file = _file(str(given))
    document = read_document(file)
    place = Place(file, "protocol")
    if "protocol" not in document or "tuning" not in document:
        raise place.error("a protocol has the tables [tuning] and [protocol].")
    table = place.table(document["protocol"])
    place.known(table, _KEYS)
    for key in _KEYS:
        if key not in table:
            raise place.at(key).error("is missing.")
    read = {key: rule.read(table[key], place.at(key)) for key, rule in _KEYS.items()}
    shares = [
        _SHARE.read(share, place.at("targets_at").item(index))
        for index, share in enumerate(read["targets_at"])
    ]
    _fits(read, shares, document, place)
    name, sha256 = file.stem, protocol_hash(document)
    _check(file, name, sha256, read["version"], document)
    return Protocol(
        file=file,
        name=name,
        sha256=sha256,
        baseline=read["baseline"],
        targets_at=tuple(shares),
        reproduce_seed=read["reproduce_seed"],
        text_sha256=read["text_sha256"],
        newcomer=read["newcomer"],
        document=document,
    )


def _fits(
    read: Mapping[str, Any], shares: Sequence[float], document: Mapping[str, Any], place: Place
) -> None:
    """Refuse a protocol that asks for what its own runs cannot give.

    Raises:
        MatrixError: a target where nothing is evaluated, a baseline or seed that is not there.
    """
    given = document.get("workload", {})
    usual = {key: rule.default for key, rule in WORKLOAD.items() if rule is not None}
    steps, every = (given.get(key, usual[key]) for key in ("steps", "evaluate_every"))
    if not isinstance(steps, int) or not isinstance(every, int):
        raise place.error("a protocol has one workload.steps and one workload.evaluate_every.")
    at = [step for step in evaluation_steps(steps, every) if step]
    for index, share in enumerate(shares):
        if round(share * steps, 6) not in at:
            raise (
                place.at("targets_at")
                .item(index)
                .error(
                    f"is {share}: after {share * steps:g} of {steps} steps nothing is evaluated. "
                    f"Shares that are: {', '.join(f'{step / steps:g}' for step in at)}."
                )
            )
    arms = document["tuning"].get("arms", {})
    if read["baseline"] not in arms:
        raise place.at("baseline").error(
            f"is '{read['baseline']}', which is no arm. Arms: {', '.join(arms)}."
            f"{nearest(read['baseline'], arms)}"
        )
    if read["reproduce_seed"] not in document.get("seeds", []):
        raise place.at("reproduce_seed").error(
            f"is {read['reproduce_seed']}, which is none of the seeds {document.get('seeds')}."
        )


def hold_declared(file: Path, document: Mapping[str, Any], declared: Mapping[str, Any]) -> None:
    """Hold what a locked protocol's words come to, points and seeds, to its lock.

    A matrix that is no protocol, or one under overrides, is another matrix and passes.

    Raises:
        UserError: defaults have changed since, so that the same words mean other points.
    """
    locked = read_lock(file.parent) if (file.parent / LOCK).is_file() else {}
    expected = locked.get(f"{file.stem}{DECLARED}")
    if expected is None or locked.get(file.stem) != protocol_hash(document):
        return
    found = declared_hash(declared)
    if found != expected:
        raise UserError(
            f"{file}: its words come to other points or seeds in this version of bertopt-bench "
            f"({found[:16]}, and {LOCK} has {expected[:16]}): a default has changed. What is tuned "
            "here could not be compared; take the version that the published records name."
        )


def declared_hash(declared: Mapping[str, Any]) -> str:
    """Hash what a tuning states beforehand: points, seeds, and each option's values."""
    return hashlib.sha256(canonical_json(declared).encode()).hexdigest()


def check_text(name: str, expected: str, found: str | None, where: str) -> None:
    """Refuse a text that is not the protocol's; one without a hash of it takes any.

    Raises:
        UserError: the hashes differ.
    """
    if expected and found is not None and found != expected:
        raise UserError(
            f"protocol {name}: the text {where} has the hash {found[:16]}, and the protocol is of "
            f"{expected[:16]}. Losses on another text cannot be compared. python_docs is another "
            "text in another patch version of Python: take the one that the protocol names."
        )


def _file(given: str) -> Path:
    """Find a protocol by its name in the checkout, or take a file."""
    path = Path(given)
    if path.suffix == ".toml":
        return path
    known = sorted(file.stem for folder in _folders() for file in folder.glob("*.toml"))
    for folder in _folders():
        if (folder / f"{given}.toml").is_file():
            return folder / f"{given}.toml"
    raise UserError(
        f"no protocol '{given}'. Protocols: {', '.join(known) or 'none here'}."
        f"{nearest(given, known)} Run in a checkout, or name the protocol's file."
    )


def _folders() -> list[Path]:
    """Give where protocols may lie: here, and beside the package in its checkout."""
    beside = Path(__file__).parent.parent.parent / FOLDER
    return [folder for folder in (FOLDER, beside) if folder.is_dir()]


def _check(file: Path, name: str, sha256: str, version: int, document: Mapping[str, Any]) -> None:
    """Refuse a protocol that is not as it was published.

    Raises:
        UserError: its name, version or hash is another.
    """
    if document.get("name") != name or not name.endswith(f"-v{version}"):
        raise UserError(
            f"{file}: name is {document.get('name')!r} and protocol.version is {version}; a "
            f"protocol in {file.name} is called '{name}' and ends with its version."
        )
    locked = read_lock(file.parent).get(name)
    if locked != sha256:
        raise UserError(
            f"{file}: is not as it was published: its hash is {sha256[:16]}, and {LOCK} has "
            f"{locked[:16] if locked else 'none'}. A protocol never changes: restore it, or make "
            f"another version, {name.rpartition('-v')[0]}-v{version + 1}."
        )
