"""Where an arm's code comes from: interpreter, revision, overlay; and whether it really did.

    asked for                   interpreter           this package from  overlay
    nothing                     this one              here               none
    python = ...                that one              here               none
    a revision of a checkout    this or that one (*)  here               its worktree
    a checkout as it is         this or that one      here               its folder
    either of the two, built    one of its own        here               none: it is installed
    a checkout of this package  as above              that checkout      none

(*) one of its own where the revision's dependencies are not those of the checkout as it is.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.child import ROOT
from bertopt_bench.dispatch import checkouts, interpreters
from bertopt_bench.errors import UserError
from bertopt_bench.measure.imports import HARNESS, find_module, hash_sources, top_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from bertopt_bench.dispatch.checkouts import Tree
    from bertopt_bench.dispatch.interpreters import Interpreter
    from bertopt_bench.matrix.arms import Arm

    Say = Callable[[str], None]

_CODE = ("commit", "project", "dirty_hash", "environment_hash")
_INTERPRETER = ("implementation", "python", "versions", "installed_hash")


@dataclass(frozen=True, slots=True)
class Subject:
    """What an arm's workers run, and what they must prove to have imported.

    Args:
        python: the interpreter to start.
        root: the folder whose ``bertopt_bench`` the workers run.
        overlay: folders put before everything but the root on the import path.
        expected: what ``mismatch`` compares a worker's proof with.
        description: for the record; it holds no path of this machine. ``environment`` is ``shared``
            (this interpreter), ``given`` (a named one) or ``own`` (made for the arm), ``project``
            the folder below its repository's top.
    """

    python: str
    root: str
    overlay: tuple[str, ...]
    expected: Mapping[str, Any]
    description: Mapping[str, Any]

    @property
    def modules(self) -> list[str]:
        """Name what ``prove_imports`` is to look for besides the modules that the cell names."""
        return sorted({*self.expected.get("modules", ()), *self.expected.get("absent", ())})


def prepare_subject(
    *,
    python: str | None = None,
    revision: str | None = None,
    checkout: Path | None = None,
    build: bool = False,
    packages: Sequence[str] = (),
    say: Say = lambda _: None,
) -> Subject:
    """Make what an arm asks for, as far as it is not there: a worktree, an environment.

    Args:
        python: another interpreter, a path or a name on the PATH.
        revision: what git takes for a commit; None for the checkout's files as they are.
        checkout: a project's folder; with a revision None is this package's own or the cwd's.
        build: install the project into an environment of its own, for compiled extensions.
        packages: import names of optional packages that the arm's cell needs.
        say: told what takes long and what is not done.

    Raises:
        UserError: the interpreter, the revision or the checkout cannot be used, or pip fails.
    """
    interpreter = interpreters.find_interpreter(python, packages)
    environment = "shared" if python is None else "given"
    if revision is None and checkout is None:
        if build:
            raise UserError("build = true says nothing without a checkout or a revision to build.")
        return _without_checkout(interpreter.require(), environment)
    working = checkouts.working_tree(checkout or checkouts.find_checkout())
    tree = working if revision is None else checkouts.revision_tree(working.folder, revision, say)
    root = _own_root(tree, revision)
    interpreter, facts = _equipped(
        interpreter, environment, (tree, working), build=build, packages=packages, say=say
    )
    return _of_checkout(interpreter, (tree, working), root, {**facts, "revision": revision}, say)


def _equipped(
    interpreter: Interpreter,
    environment: str,
    trees: tuple[Tree, Tree],
    *,
    build: bool,
    packages: Sequence[str],
    say: Say,
) -> tuple[Interpreter, dict[str, Any]]:
    """Give the interpreter for a tree, one of its own where it needs other packages; describe both.

    ``trees`` are the arm's and the working tree, whose packages the given interpreter is to have.
    """
    tree, working = trees
    name = checkouts.requirements_hash(tree.folder)
    if build or name != checkouts.requirements_hash(working.folder):
        environment = "own"
        interpreter, name = interpreters.own_environment(
            interpreter, tree, build=build, packages=packages, say=say
        )
    return interpreter, _described(interpreter.require(), environment) | {
        "commit": tree.commit,
        "project": checkouts.place_in_repository(tree.folder),
        "dirty_hash": tree.dirty_hash,
        "environment_hash": name,
        "built": build,
    }


def _without_checkout(interpreter: Interpreter, environment: str) -> Subject:
    expected = {**_expected(interpreter), "harness": hash_sources(Path(ROOT) / HARNESS)}
    return Subject(interpreter.python, ROOT, (), expected, _described(interpreter, environment))


def _expected(interpreter: Interpreter) -> dict[str, Any]:
    return {
        "python": interpreter.version,
        "implementation": interpreter.implementation,
        "versions": dict(interpreter.versions),
    }


def _described(interpreter: Interpreter, environment: str) -> dict[str, Any]:
    return {
        "python": interpreter.version,
        "implementation": interpreter.implementation,
        "versions": dict(interpreter.versions),
        "installed_hash": interpreter.installed_hash,
        "environment": environment,
        "revision": None,
        "commit": None,
        "project": "",
        "dirty_hash": "",
        "environment_hash": "",
        "built": False,
    }


def _of_checkout(
    interpreter: Interpreter,
    trees: tuple[Tree, Tree],
    root: Path | None,
    description: Mapping[str, Any],
    say: Say,
) -> Subject:
    """Put a tree's packages before the installed ones; run this package from its own checkout."""
    tree, working = trees
    folders = () if root else checkouts.import_folders(tree.folder)
    offered = set[str]().union(*map(top_names, folders))
    elsewhere = set[str]().union(*map(top_names, checkouts.import_folders(working.folder)))
    built = description["built"] and root is None
    _warn(tree, offered, description, say)
    offered, elsewhere = (
        names - sys.stdlib_module_names  # some were loaded before the overlay was there
        for names in (offered, elsewhere)
    )
    homes = [Path(interpreter.packages_folder)] if built else folders
    expected = {
        **_expected(interpreter),
        "harness": hash_sources((root or Path(ROOT)) / HARNESS),
        "harness_commit": tree.commit if root else None,
        "commit": tree.commit,
        "dirty": bool(tree.dirty_hash),
        "root": "site-packages" if built else "overlay",
        "modules": _sources(offered, homes),
        "absent": sorted(elsewhere - offered) if root is None else [],
        "must_import": root is None and (built or description["environment"] != "own"),
    }
    overlay = () if built else tuple(map(str, folders))
    return Subject(interpreter.python, str(root or ROOT), overlay, expected, description)


def _own_root(tree: Tree, revision: str | None) -> Path | None:
    """Give the folder of this package in a checkout of it; None in any other checkout.

    Raises:
        UserError: its worker does not obey this package's duels.
    """
    folders = checkouts.import_folders(tree.folder)
    root = next((f for f in folders if find_module(f, HARNESS)), None)
    if root is None:
        return None
    ours, theirs = checkouts.arm_protocol(Path(ROOT)), checkouts.arm_protocol(root)
    what = "the checkout" if revision is None else f"revision '{revision}'"
    if theirs is None:
        raise UserError(
            f"{what} has no duel worker ({HARNESS}/{checkouts.WORKER_FILE}): "
            "it was made before there were duels. Name a later one."
        )
    if theirs != ours:
        raise UserError(
            f"{what} speaks version {theirs} of the duel protocol, this package {ours}. "
            "Name a revision nearer to it, or install the one to compare with."
        )
    return root


def _warn(tree: Tree, offered: Iterable[str], description: Mapping[str, Any], say: Say) -> None:
    shadows = sorted(sys.stdlib_module_names.intersection(offered))
    if shadows:
        say(f"warning: the checkout's {', '.join(shadows)} shadows Python's own module")
    if not description["built"] and checkouts.needs_compiler(tree.folder):
        say(
            f"note: commit {tree.commit[:12]} has extensions to compile; as it is imported where "
            "it lies they may be missing: build = true installs it"
        )


def _sources(names: Iterable[str], homes: Sequence[Path]) -> dict[str, str | None]:
    """Hash each module that is found in one of the folders, as a worker will."""
    places = {name: [find_module(home, name) for home in homes] for name in sorted(names)}
    found = {name: next(filter(None, several), None) for name, several in places.items()}
    return {name: hash_sources(place) for name, place in found.items() if place is not None}


def arm_identity(arm: Arm, description: Mapping[str, Any]) -> list[Any]:
    """Give what tells an arm from another, its code too, in words that hold on every machine.

    An arm that names no code runs what is installed here: that, and what an interpreter has which
    the arms share, each session records for itself.
    """
    said = [arm.label, arm.cell.id, arm.revision, arm.python is not None, arm.injected_share]
    if not (arm.python or arm.revision or arm.checkout or arm.build):
        return said
    own = description.get("environment") != "shared"
    facts = {key: description.get(key) for key in (*_CODE, *(_INTERPRETER if own else ()))}
    return [*said, arm.build, facts]


def mismatch(proof: Mapping[str, Any], subject: Subject) -> str | None:
    """Say in words why a worker's proof is not what its arm asked for; None where all is."""
    checks = (_wrong_python, _wrong_harness, _wrong_module, _nothing_imported)
    reasons = (check(proof, subject.expected) for check in checks)
    return next(filter(None, reasons), None)


def _wrong_python(proof: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    for key in ("implementation", "python"):
        if proof.get(key) != expected[key]:
            return f"the {key} is {proof.get(key)}, not {expected[key]}"
    for name, version in expected["versions"].items():
        found = _found(proof, name).get("version")
        if found != version:
            return f"{name} {found} was imported, not {version}"
    return None


def _found(proof: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return proof.get("modules", {}).get(name) or {}


def _wrong_harness(proof: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    found = _found(proof, HARNESS)
    if found.get("sources") != expected["harness"]:
        return (
            f"the sources of {HARNESS} are {found.get('sources')} ({found.get('root')}), "
            f"not {expected['harness']}"
        )
    commit = expected.get("harness_commit")
    if commit and found.get("commit") not in {commit, None}:
        return f"{HARNESS} is of commit {found['commit']}, not {commit}"
    return None


def _wrong_module(proof: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """Find a module that exists in the checkout and came from elsewhere, or has changed since."""
    for name, found in proof.get("modules", {}).items():
        reason = None
        if found and name in expected.get("absent", ()):
            reason = f"was imported ({found['root']}), and the revision has no such module"
        elif found and name in expected.get("modules", ()):
            reason = _unlike(found, expected["modules"][name], expected)
        if reason is not None:
            return f"'{name}' {reason}"
    return None


def _unlike(
    found: Mapping[str, Any], sources: str | None, expected: Mapping[str, Any]
) -> str | None:
    installed = expected["root"] == "site-packages"
    origin = "its own environment" if installed else "the checkout"
    strays = ", ".join(found["strays"][:3])
    edited = found["dirty"] and not expected["dirty"] and not installed
    unknown = sources is None and found["commit"] is None and found["record"] is None
    reasons = {
        f"was imported from elsewhere ({found['root']}), not from {origin}": (
            found["root"] != expected["root"]
        ),
        f"has parts from elsewhere: {strays}": bool(strays),
        f"is of commit {found['commit']}, not {expected['commit']}": (
            found["commit"] not in {expected["commit"], None} and not installed
        ),
        f"has other sources ({found['sources']}) than when it was prepared ({sources})": (
            found["sources"] != sources
        ),
        f"was edited after commit {expected['commit']}": edited,
        "is too large to be told by its sources, and git cannot tell its commit": unknown,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _nothing_imported(proof: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """Refuse to compare two revisions where the trial used nothing of either."""
    if not expected.get("must_import") or any(_found(proof, m) for m in expected["modules"]):
        return None
    names = ", ".join(sorted(expected["modules"])[:5]) or "no module"
    return f"nothing of the checkout was imported: it has {names}, and the cell names none of them"
