"""From documents to batches: split, tokens, masks, and the cache that keeps them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertopt_bench.errors import UserError
from bertopt_bench.workload import masking, tokens
from bertopt_bench.workload.prepare import prepare, read_documents

WORKLOAD: dict[str, Any] = {
    "corpus": "python_docs",
    "vocabulary_size": 600,
    "seq_len": 32,
    "batch_size": 8,
    "mask_rate": 0.15,
    "evaluation_batches": 3,
    "held_out_fraction": 0.1,
    "lower_case": True,
}
ARRAYS = ("input_ids", "lengths", "masked_position", "masked_label")


def silent(_what: str, _done: int, _total: int) -> None:
    """Swallow progress."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a small corpus of the user's own: 40 documents of words from a tiny grammar."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = np.random.default_rng(0)
    words = ["".join(draw.choice(list("abcdefg"), size=draw.integers(2, 7))) for _ in range(200)]
    for number in range(40):
        count = int(draw.integers(30, 300))
        (folder / f"{number:02}.txt").write_text(" ".join(draw.choice(words, size=count)))
    return f"path:{folder}/*.txt"


def prepared(
    corpus: str, cache: Path, steps: int = 12, seeds: tuple[int, ...] = (1,), **options: Any
) -> Any:
    workload = {**WORKLOAD, "corpus": corpus, "vocabulary_size": 200, **options}
    return prepare(workload, seeds, steps=steps, cache=cache, progress=silent)


def read(place: dict[str, str]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.load(Path(place["folder"]) / f"{name}.npy") for name in ARRAYS}


def test_split_is_by_document_and_about_the_asked_share() -> None:
    """No document is on both sides, none is lost, the held-out share stays within the fraction."""
    documents = [f"document {number} " * (number + 1) for number in range(50)]

    split = tokens.split_documents(documents, 0.2)

    assert set(split.train).isdisjoint(split.held_out)
    assert sorted(split.train + split.held_out) == sorted(documents)
    share = sum(map(len, split.held_out)) / sum(map(len, documents))
    assert 0.15 < share <= 0.2


def test_equal_texts_fall_on_one_side() -> None:
    documents = [f"text {number % 10}" for number in range(40)]

    split = tokens.split_documents(documents, 0.3)

    assert set(split.train).isdisjoint(split.held_out)
    assert len(split.held_out) % 4 == 0


def test_split_does_not_depend_on_the_order_of_documents() -> None:
    documents = [f"document {number}" for number in range(30)]

    forward = tokens.split_documents(documents, 0.2)
    backward = tokens.split_documents(documents[::-1], 0.2)

    assert forward.held_out == backward.held_out[::-1]


def test_two_documents_are_one_and_one() -> None:
    split = tokens.split_documents(["a long document", "short"], 0.01)

    assert (split.train, split.held_out) == (["a long document"], ["short"])


@pytest.mark.parametrize(
    ("documents", "fraction", "text"),
    [(["same", "same"], 0.1, "1 different documents"), (["a", "b"], 1.5, "between 0 and 1")],
)
def test_texts_that_cannot_be_split_are_refused(
    documents: list[str], fraction: float, text: str
) -> None:
    with pytest.raises(UserError, match=text):
        tokens.split_documents(documents, fraction)


def test_tokenizer_is_trained_on_train_text_only() -> None:
    """A word of held-out text alone is spelled in the letters of the train text."""
    tokenizer = tokens.train_tokenizer(["abab abab ab ba"] * 20, 80, lower_case=True)

    assert tokens.vocabulary(tokenizer)[:5] == list(tokens.SPECIAL_TOKENS)
    assert tokenizer.encode("ABAB").tokens == ["abab"]
    assert tokenizer.encode("zz").tokens == ["[UNK]"]
    assert tokenizer.encode("aabb", add_special_tokens=False).tokens[0] in {"a", "aa", "aab"}


def test_case_is_kept_if_asked_for() -> None:
    tokenizer = tokens.train_tokenizer(["Abba abba"] * 20, 80, lower_case=False)

    assert tokenizer.encode("Abba abba").tokens == ["Abba", "abba"]


def test_a_vocabulary_smaller_than_the_letters_is_refused() -> None:
    letters = " ".join(chr(number) * 2 for number in range(0x3B1, 0x3C9))

    with pytest.raises(UserError, match="vocabulary_size is 20, but this text has"):
        tokens.train_tokenizer([letters], 20, lower_case=True)


SCRIPT = """
import hashlib, json, sys
from pathlib import Path
from bertopt_bench.workload.prepare import prepare
workload = json.loads(sys.argv[1])
text = prepare(workload, [1], steps=5, cache=Path(sys.argv[2]), progress=lambda *_: None)
print(text.tokenizer_sha256, text.batches["1"]["sha256"], text.evaluation["sha256"])
"""


def test_two_processes_prepare_the_same_bytes(corpus: str, tmp_path: Path) -> None:
    """Tokenizer and batches, byte for byte, under other hash seeds and thread counts.

    The trainer of ``tokenizers`` by itself gives another vocabulary in each process.
    """
    workload = json.dumps({**WORKLOAD, "corpus": corpus, "vocabulary_size": 200})
    outputs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT, workload, str(tmp_path / name)],
            env={**os.environ, "PYTHONHASHSEED": name, "RAYON_NUM_THREADS": name},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in ("1", "2", "3")
    ]

    assert len(outputs[0].split()) == 3
    assert len(set(outputs)) == 1


def test_batches_hold_what_they_promise(corpus: str, tmp_path: Path) -> None:
    """Shapes, types, [CLS] and [SEP], padding, and exactly round(rate * m) masked tokens each."""
    text = prepared(corpus, tmp_path)
    batch = read(text.batches["1"])
    ids, lengths = batch["input_ids"], batch["lengths"]
    position, label = batch["masked_position"], batch["masked_label"]

    assert [batch[name].dtype for name in ARRAYS] == [np.int32, np.int32, np.int32, np.int64]
    assert (ids.shape, lengths.shape, position.shape) == ((12, 8, 32), (12, 8), (12, 8, 4))
    column = np.arange(32)
    assert (ids[..., 0] == tokens.CLS).all()
    assert (np.take_along_axis(ids, lengths[..., None] - 1, axis=2) == tokens.SEP).all()
    assert ((ids == tokens.PAD) == (column >= lengths[..., None])).all()
    used = label != masking.IGNORED
    expected = np.maximum(1, np.rint(0.15 * (lengths - 2)))
    assert (used.sum(axis=2) == expected).all()
    assert (position[~used] == 0).all()
    inside = (position > 0) & (position < lengths[..., None] - 1)
    assert inside[used].all()
    for row, mask in zip(position.reshape(-1, 4), used.reshape(-1, 4), strict=True):
        assert len(set(row[mask])) == mask.sum()


def test_sequences_are_the_train_text_in_another_order(corpus: str, tmp_path: Path) -> None:
    """With labels put back, an epoch of batches is every train sequence exactly once."""
    text = prepared(corpus, tmp_path)
    epoch = text.train_sequences // 8
    batch = read(prepared(corpus, tmp_path, steps=epoch).batches["1"])
    ids = batch["input_ids"].reshape(-1, 32).copy()
    position, label = batch["masked_position"].reshape(-1, 4), batch["masked_label"].reshape(-1, 4)
    row, slot = np.nonzero(label != masking.IGNORED)
    ids[row, position[row, slot]] = label[row, slot]

    folder = Path(text.tokenizer_file).parent
    pieces = masking.cut(tokens.load_tokens(folder, "train"), 32)
    whole, _ = masking.lay_out(pieces, np.arange(len(pieces)), 32)
    everything = {bytes(row) for row in whole}
    assert all(bytes(row) in everything for row in ids)
    assert len(pieces) == text.train_sequences
    assert int(pieces.length.sum()) == text.train_tokens
    order = masking.draw_order(masking._generator(1, masking.ORDER), len(pieces), 8)
    drawn = np.concatenate([next(order) for _ in range(epoch)])
    assert len(set(drawn.tolist())) == len(drawn)


def test_masks_are_80_10_10() -> None:
    """Shares of [MASK], random and kept tokens within 4 sigma of the binomial law."""
    shape = masking.Shape(1, 400, 66, 0.25, 1000)
    text = tokens.TokenText(np.full(64 * 400, 7, np.int32), np.array([0, 64 * 400]))
    sequences = masking.cut(text, 66)
    ids, lengths = masking.lay_out(sequences, np.arange(400), 66)

    position, label = masking.mask(np.random.default_rng(0), ids, lengths, shape)
    shown = np.take_along_axis(ids, position.astype(np.int64), axis=1)

    count = 400 * 16
    assert (label == 7).sum() == count
    for share, found in ((0.8, shown == tokens.MASK), (0.1, shown == 7)):
        sigma = np.sqrt(count * share * (1 - share))
        assert abs(found.sum() - share * count) < 4 * sigma
    random = shown[(shown != tokens.MASK) & (shown != 7)]
    assert random.min() >= len(tokens.SPECIAL_TOKENS)
    assert random.max() < 1000


def test_positions_are_masked_evenly() -> None:
    """Each place between [CLS] and [SEP] is masked equally often, within 5 sigma."""
    shape = masking.Shape(1, 4000, 22, 0.25, 100)
    text = tokens.TokenText(np.full(20 * 4000, 7, np.int32), np.array([0, 20 * 4000]))
    ids, lengths = masking.lay_out(masking.cut(text, 22), np.arange(4000), 22)

    position, _ = masking.mask(np.random.default_rng(0), ids, lengths, shape)

    counts = np.bincount(position.ravel(), minlength=22)
    assert counts[0] == counts[21] == 0
    sigma = np.sqrt(4000 * 0.25 * 0.75)
    assert np.abs(counts[1:21] - 1000).max() < 5 * sigma


@given(st.lists(st.integers(1, 70), min_size=1, max_size=12), st.integers(3, 20))
@settings(max_examples=60, deadline=None)
def test_cutting_loses_and_mixes_nothing(lengths: list[int], seq_len: int) -> None:
    """Pieces, end to end, are the text; each lies within one document and is not empty."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    pieces = masking.cut(tokens.TokenText(np.arange(starts[-1], dtype=np.int32), starts), seq_len)

    joined = np.concatenate(
        [np.arange(a, a + n) for a, n in zip(pieces.first, pieces.length, strict=True)]
    )
    assert joined.tolist() == list(range(starts[-1]))
    document = np.searchsorted(starts, pieces.first, side="right")
    assert (
        document == np.searchsorted(starts, pieces.first + pieces.length - 1, side="right")
    ).all()
    assert pieces.length.min() >= 1
    assert pieces.length.max() <= seq_len - 2


def test_the_first_steps_do_not_depend_on_how_many_follow(corpus: str, tmp_path: Path) -> None:
    short = read(prepared(corpus, tmp_path, steps=5).batches["1"])
    long = read(prepared(corpus, tmp_path, steps=60).batches["1"])

    assert all(np.array_equal(long[name][:5], short[name]) for name in ARRAYS)


def test_seeds_differ_and_evaluation_has_none(corpus: str, tmp_path: Path) -> None:
    text = prepared(corpus, tmp_path, seeds=(1, 2))
    other = prepared(corpus, tmp_path, seeds=(3,), steps=4)

    assert text.batches["1"]["sha256"] != text.batches["2"]["sha256"]
    assert text.evaluation == other.evaluation
    assert read(text.evaluation)["input_ids"].shape == (3, 8, 32)


def test_order_and_masks_have_generators_of_their_own(corpus: str, tmp_path: Path) -> None:
    """Another mask rate leaves the order of the sequences as it is."""
    few = read(prepared(corpus, tmp_path).batches["1"])
    many = read(prepared(corpus, tmp_path, mask_rate=0.3).batches["1"])

    assert np.array_equal(few["lengths"], many["lengths"])
    assert few["masked_label"].shape[2] < many["masked_label"].shape[2]


def test_text_that_is_too_small_is_refused(corpus: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"held-out text has .* Lower evaluation_batches"):
        prepared(corpus, tmp_path, evaluation_batches=500)
    with pytest.raises(UserError, match=r"train text has .* Lower batch_size"):
        prepared(corpus, tmp_path, batch_size=100_000, evaluation_batches=0)


def test_python_docs_is_always_there(tmp_path: Path) -> None:
    """CPython ships about eighty topics, half a megabyte."""
    documents = read_documents("python_docs", tmp_path, silent)

    assert len(documents) > 60
    assert sum(map(len, documents)) > 300_000
