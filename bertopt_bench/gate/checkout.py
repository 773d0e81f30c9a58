"""Ask git which code a gate compares: the checkout, its revisions, whether it has changes."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bertopt_bench.dispatch.checkouts import Tree, import_folders, working_tree
from bertopt_bench.errors import UserError, nearest
from bertopt_bench.measure.provenance import run_git

if TYPE_CHECKING:
    from collections.abc import Iterator


def find_head(path: Path | None = None) -> Tree:
    """Describe the working tree at a path, or of the checkout that the working directory is in.

    Raises:
        UserError: there is none, or it has no commit yet.
    """
    if path is not None:
        return working_tree(path)
    top = run_git(Path.cwd(), "rev-parse", "--show-toplevel")
    if not top:
        raise UserError("The working directory is in no git checkout. Name one: --checkout PATH.")
    return working_tree(Path(top))


def resolve(checkout: Path, revision: str, option: str) -> str:
    """Give the commit that a revision means now.

    Raises:
        UserError: git does not know it; the text names the nearest tag or branch.
    """
    asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    commit = run_git(checkout, *asked)
    if commit:
        return commit
    names = (run_git(checkout, "for-each-ref", "--format=%(refname:short)") or "").split()
    raise UserError(
        f"{option} '{revision}' is no revision of this checkout.{nearest(revision, names)} "
        "A shallow clone lacks most of them: fetch it whole (fetch-depth: 0 on GitHub, "
        "GIT_DEPTH: 0 on GitLab, or git fetch --unshallow --tags)."
    )


@contextmanager
def importable(checkout: Path) -> Iterator[None]:
    """Let the children that look at a user's entries find them in the working tree.

    Only while a policy or a matrix is read: arms get their code from their own revision.
    """
    before = os.environ.get("PYTHONPATH")
    paths = [*map(str, import_folders(checkout)), *([before] if before else [])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
