"""What all pages share: their templates, their limits, the plain form of what they read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bertopt_bench.report import wording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Template
    from markupsafe import Markup
    from pandas import DataFrame

TEMPLATES = Path(__file__).parent / "templates"
# 1,000 trials fit, plotly.js of 1.96 MB included; data are thinned before a page grows beyond it.
MOST_BYTES = 2_480_000
_EMPTY = {
    "trials": ("trial", "cell_id", "status"),
    "steps": ("trial", "step", "loss"),
    "evaluations": ("trial", "step", "loss"),
    "inside": ("trial", "step", "module"),
}
"""Tables that pages read, with the columns that one without rows has."""


class ResultSet(Protocol):
    """What a page reads of `results.tables.Results`."""

    @property
    def sessions(self) -> Sequence[Any]:
        """What ran where, a mapping or model each."""
        ...

    @property
    def trials(self) -> DataFrame:
        """A row a trial."""
        ...

    @property
    def steps(self) -> DataFrame:
        """A row a timed step."""
        ...

    @property
    def evaluations(self) -> DataFrame:
        """A row a held-out evaluation."""
        ...

    @property
    def inside(self) -> DataFrame:
        """A row a looked-at step and module of the network."""
        ...

    @property
    def warnings(self) -> Sequence[object]:
        """What reading the files had to say."""
        ...


def template(name: str) -> Template:
    """Load a template that escapes all it is given and knows no undefined name."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    environment.filters["unbroken"] = unbroken
    return environment.get_template(name)


def breakable(name: str) -> Markup:
    """Let a dotted or coloned name break between its words, but not within a number.

    >>> str(breakable("encoder.layer lr=0.1"))
    'encoder.<wbr>layer lr=0.1'
    """
    from markupsafe import Markup, escape

    return Markup(re.sub(r"(::|\.(?=\w)(?!(?<=\d\.)\d)|_(?=\w))", r"\1<wbr>", str(escape(name))))  # noqa: S704


def unbroken(words: str) -> str:
    """Keep each number on one line with its unit.

    >>> unbroken("4.3 s to 5 s · n 3").replace(chr(0xA0), "_")
    '4.3_s to 5_s · n 3'
    """
    return re.sub(r"(?<=\d) (?=[^\s·])", "\u00a0", words)


def asset(name: str) -> Markup:
    """Read one of the page's own files, which need no escaping."""
    from markupsafe import Markup

    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))  # noqa: S704 - our own file


def assets(*names: str) -> dict[str, Markup]:
    """Read files under the names that templates know them by: `page.css` is `page_css`."""
    return {name.replace(".", "_"): asset(name) for name in names}


def plain_session(session: Any) -> dict[str, Any]:
    """Turn a session, a model or a mapping, into a dictionary."""
    dump = getattr(session, "model_dump", None)
    return dict(dump(mode="json") if dump else session)


def title_of(results: Sequence[ResultSet], title: str | None) -> str:
    """Take the title asked for, or the names of the matrices."""
    matrices = [plain_session(s).get("matrix") for result in results for s in result.sessions]
    names = [str(m.get("name", "")) if isinstance(m, dict) else str(m or "") for m in matrices]
    return title or wording.listed(list(dict.fromkeys(filter(None, names)))) or "Results"


def joined(results: Sequence[ResultSet]) -> dict[str, DataFrame]:
    """Join the tables of several result sets, renumbering trials so that none collide."""
    import pandas as pd

    tables: dict[str, list[DataFrame]] = {name: [] for name in _EMPTY}
    offset = 0
    for result in results:
        for name, kept in tables.items():
            frame = getattr(result, name)
            if len(frame):
                kept.append(frame.assign(trial=frame["trial"] + offset))
        offset += len(result.trials)
    return {
        name: pd.concat(kept, ignore_index=True)
        if kept
        else pd.DataFrame(columns=list(_EMPTY[name]))
        for name, kept in tables.items()
    }
