"""Write the page that suits what is named: trials and duels, profiles, tuning, operations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bertopt_bench.errors import UserError
from bertopt_bench.report.micro import write_micro
from bertopt_bench.report.page import write, write_text
from bertopt_bench.report.profiles import render_profiles
from bertopt_bench.report.tuning import render_tuning
from bertopt_bench.results.micro import only_micro, read_micro
from bertopt_bench.results.profiles import has_profiles, load_profiles
from bertopt_bench.results.reading import RECORDS, SESSIONS
from bertopt_bench.results.tables import load_results
from bertopt_bench.results.tuning import has_tuning, load_tuning

if TYPE_CHECKING:
    from collections.abc import Sequence


def write_kind(results: Sequence[Path | str], page: Path) -> None:
    """Write one page of all that is named.

    Raises:
        UserError: no such folder, one that is named twice, kinds that share no page, or a page that
            cannot be written.
    """
    _refuse_repeated(results)
    if only_micro(results):
        write_micro([read_micro(file) for file in results], page)
    elif any(has_profiles(folder) for folder in results):
        _alone(results, "profiles")
        write_text(render_profiles(load_profiles(results[0])), page)
    elif any(has_tuning(folder) for folder in results):
        _alone(results, "tuning")
        write_text(render_tuning(load_tuning(results[0])), page)
    else:
        write([load_results(folder) for folder in results], page)


def _refuse_repeated(results: Sequence[Path | str]) -> None:
    """Refuse results that are named twice: each number would count twice."""
    seen: set[Path] = set()
    for one in map(Path, results):
        folder = one.parent if one.name in {RECORDS, SESSIONS} else one
        if folder.resolve() in seen:
            raise UserError(f"{one} is named twice: its numbers would count twice. Name it once.")
        seen.add(folder.resolve())


def _alone(results: Sequence[Path | str], what: str) -> None:
    if len(results) > 1:
        raise UserError(
            f"{', '.join(map(str, results))}: a folder of {what} has a page of its own. Name it "
            "alone: bertopt-bench report FOLDER"
        )
