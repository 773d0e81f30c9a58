"""Write the page that suits what is named: trials and duels, profiles, or micro-benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertopt_bench.errors import UserError
from bertopt_bench.report.micro import write_micro
from bertopt_bench.report.page import write, write_text
from bertopt_bench.report.profiles import render_profiles
from bertopt_bench.results.micro import only_micro, read_micro
from bertopt_bench.results.profiles import has_profiles, load_profiles
from bertopt_bench.results.tables import load_results

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def write_kind(results: Sequence[Path | str], page: Path) -> None:
    """Write one page of all that is named.

    Raises:
        UserError: no such folder, kinds that share no page, or a page that cannot be written.
    """
    if only_micro(results):
        write_micro([read_micro(file) for file in results], page)
    elif any(has_profiles(folder) for folder in results):
        _write_profiles(results, page)
    else:
        write([load_results(folder) for folder in results], page)


def _write_profiles(results: Sequence[Path | str], page: Path) -> None:
    if len(results) > 1:
        raise UserError(
            f"{', '.join(map(str, results))}: a folder of profiles has a page of its own. Name it "
            "alone: bertopt-bench report FOLDER"
        )
    write_text(render_profiles(load_profiles(results[0])), page)
