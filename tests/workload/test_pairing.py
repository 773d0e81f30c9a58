"""Pairs of sentences: what follows what, from which document, and what is masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bertopt_bench.errors import UserError
from bertopt_bench.workload import masking, pairing
from bertopt_bench.workload.prepare import prepare
from bertopt_bench.workload.tokens import CLS, MASK, PAD, SEP, TokenText

if TYPE_CHECKING:
    from pathlib import Path

LENGTHS = (47, 8, 30, 21)  # of documents; the second has one piece, so that it is in no pair
SEQ_LEN, HALF, VOCABULARY = 23, 10, 2000
SHAPE = masking.Shape(60, 8, SEQ_LEN, 0.15, VOCABULARY)


def text() -> TokenText:
    """Give documents in which a token's number says where it stands: 100 * document + place."""
    ids = [100 * (d + 1) + place for d, length in enumerate(LENGTHS) for place in range(length)]
    starts = np.concatenate([[0], np.cumsum(LENGTHS)])
    return TokenText(np.asarray(ids, dtype=np.int32), starts.astype(np.int64))


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("pairs")
    pairing.write_batches(folder, pairing.cut(text(), SEQ_LEN), SHAPE, 1, lambda _: None)
    return {file.stem: np.load(file) for file in folder.glob("*.npy")}


def unmasked(batches: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put the truth back; give ids, lengths and labels, a row a pair."""
    ids = batches["input_ids"].reshape(-1, SEQ_LEN).copy()
    places = batches["masked_position"].reshape(len(ids), -1)
    truth = batches["masked_label"].reshape(len(ids), -1)
    rows, columns = np.nonzero(truth >= 0)
    ids[rows, places[rows, columns]] = truth[rows, columns]
    return ids, batches["lengths"].ravel(), batches["next_sentence_label"].ravel()


def test_a_pair_is_two_pieces_of_its_label(batches: dict[str, Any]) -> None:
    """Oracle: the numbers of the tokens: B goes on where A ends, or is of another document."""
    ids, lengths, labels = unmasked(batches)
    for row, length, label in zip(ids, lengths, labels, strict=True):
        first, second = row[1 : HALF + 1], row[HALF + 2 : length - 1]
        assert row[0] == CLS
        assert row[HALF + 1] == row[length - 1] == SEP
        assert (row[length:] == PAD).all()
        assert (np.diff(first) == 1).all()
        assert (np.diff(second) == 1).all()
        assert 1 <= len(second) <= HALF
        if label == pairing.IS_NEXT:
            assert second[0] == first[-1] + 1
        else:
            assert second[0] // 100 != first[0] // 100
            assert second[0] % 100 > 0, "a first piece would give the answer away"


def test_half_of_the_pairs_follow_and_a_seed_draws_the_same(
    batches: dict[str, Any], tmp_path: Path
) -> None:
    """Oracle: three standard deviations of 480 coin tosses; the same files again."""
    labels = batches["next_sentence_label"].ravel()
    assert abs(labels.mean() - 0.5) < 3 * 0.5 / np.sqrt(len(labels))

    fewer = masking.Shape(5, 8, SEQ_LEN, 0.15, VOCABULARY)
    pairing.write_batches(tmp_path, pairing.cut(text(), SEQ_LEN), fewer, 1, lambda _: None)
    for file in tmp_path.glob("*.npy"):
        np.testing.assert_array_equal(np.load(file), batches[file.stem][:5])


def test_separators_are_never_masked_and_the_share_is_exact(batches: dict[str, Any]) -> None:
    """Oracle: round(0.15 m) of the m tokens of A and B, at least one (Devlin et al.)."""
    ids = batches["input_ids"].reshape(-1, SEQ_LEN)
    lengths, labels = batches["lengths"].ravel(), batches["masked_label"].reshape(len(ids), -1)
    counts = (labels >= 0).sum(axis=1)

    np.testing.assert_array_equal(counts, np.maximum(1, np.rint(0.15 * (lengths - 3))))
    assert not np.isin(labels[labels >= 0], [CLS, SEP, PAD, MASK]).any()
    assert (ids[:, HALF + 1] == SEP).all()
    places = batches["masked_position"].reshape(len(ids), -1)
    assert (places[labels >= 0] > HALF + 1).any()


def test_segments_begin_with_b() -> None:
    """Oracle: Devlin et al., figure 2: [CLS], A and the first [SEP] are of segment 0."""
    assert pairing.segments(SEQ_LEN).tolist() == [0] * (HALF + 2) + [1] * (SEQ_LEN - HALF - 2)


def test_what_cannot_be_paired_is_refused() -> None:
    """Oracle: the design's rule for errors."""
    with pytest.raises(UserError, match="seq_len 8 or more; it is 7"):
        pairing.cut(text(), 7)
    with pytest.raises(UserError, match="two documents of more than 30 tokens"):
        pairing.cut(text(), 64)


def test_real_text_is_prepared_and_plain_batches_stay_as_they_were(tmp_path: Path) -> None:
    """Oracle: the batches' hash without the key, which must not depend on this module."""
    workload = {
        "name": "mlm", "corpus": "python_docs", "vocabulary_size": 300, "seq_len": 32,
        "batch_size": 4, "mask_rate": 0.15, "evaluation_batches": 1, "held_out_fraction": 0.1,
        "lower_case": True,
    }  # fmt: skip
    options: dict[str, Any] = {"steps": 2, "cache": tmp_path, "progress": lambda *_: None}
    plain = prepare(workload, [1], **options)
    off = prepare({**workload, "next_sentence": False}, [1], **options)
    pairs = prepare({**workload, "next_sentence": True}, [1], **options)

    assert off.batches == plain.batches
    assert pairs.batches["1"]["sha256"] != plain.batches["1"]["sha256"]
