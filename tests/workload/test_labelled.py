"""Labelled text: where it comes from, how it is split, how its batches are laid out."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bertopt_bench.errors import UserError
from bertopt_bench.workload import labelled_parts
from bertopt_bench.workload.datasets import Labelled, hf
from bertopt_bench.workload.labelled import NO_LABEL
from bertopt_bench.workload.prepare import prepare
from bertopt_bench.workload.tokens import read_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

WORDS = {"farm": "wheat barley harvest field cow", "port": "ship harbour crane cargo anchor"}
WORKLOAD = {
    "name": "classification",
    "model": {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 32},
    "weights": "random",
    "tokenizer": "trained",
    "vocabulary_size": 80,
    "lower_case": True,
    "class_weights": "none",
    "seq_len": 8,
    "batch_size": 4,
    "held_out_fraction": 0.25,
}


def pairs(count: int = 60) -> list[tuple[str, str]]:
    """Make short texts of two classes."""
    draw = np.random.default_rng(1)
    labels = [("farm", "port")[index % 3 == 0] for index in range(count)]
    return [(" ".join(draw.choice(WORDS[name].split(), 9)), name) for name in labels]


def write_csv(file: Path, rows: list[tuple[str, str]], columns: tuple[str, ...]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return file


def prepared(tmp_path: Path, files: str, seeds: tuple[int, ...] = (1,), **keys: Any) -> Any:
    workload = {**WORKLOAD, "dataset": f"path:{files}", **keys}
    return prepare(workload, seeds, steps=6, cache=tmp_path / "cache", progress=lambda *_: None)


def test_batches_hold_the_texts_with_their_labels(tmp_path: Path) -> None:
    """Every row, decoded, is a text cut to S - 2 pieces under its own label. Oracle: the file."""
    file = write_csv(tmp_path / "mine.csv", pairs(), ("text", "label"))
    text = prepared(tmp_path, str(file))
    tokenizer = read_tokenizer(text.tokenizer_file)
    known = {
        tuple(tokenizer.encode(words, add_special_tokens=False).ids[:6]): text.classes.index(label)
        for words, label in pairs()
    }

    total = 0
    for place in (text.batches["1"], text.evaluation, text.test):
        ids, lengths, labels = (
            np.load(f"{place['folder']}/{name}.npy") for name in ("input_ids", "lengths", "labels")
        )
        assert ids.shape == (*labels.shape, 8)
        for row, length, label in zip(
            ids.reshape(-1, 8), lengths.ravel(), labels.ravel(), strict=True
        ):
            assert (row[0], row[length - 1], list(row[length:])) == (2, 3, [0] * (8 - length))
            if label != NO_LABEL:
                assert known[tuple(row[1 : length - 1])] == label
                total += 1
    assert total == 6 * 4 + sum(text.counts["validation"]) + sum(text.counts["test"])
    assert text.classes == ["farm", "port"]


def test_a_seed_changes_the_order_and_nothing_else(tmp_path: Path) -> None:
    """The same seed gives the same bytes from an empty cache, another seed another order."""
    file = write_csv(tmp_path / "mine.csv", pairs(), ("text", "label"))

    first = prepared(tmp_path / "a", str(file), (1, 2))
    again = prepared(tmp_path / "b", str(file), (1,))

    assert first.batches["1"]["sha256"] == again.batches["1"]["sha256"]
    assert first.batches["1"]["sha256"] != first.batches["2"]["sha256"]
    assert first.test["sha256"] == again.test["sha256"]


def test_splits_put_a_text_on_one_side_and_keep_an_official_test_part() -> None:
    """Copies of a text stay together; about a fifth is tested, a quarter of the rest validates."""
    many = [(f"text {index}", "ab"[index % 2]) for index in range(4000)]
    split = labelled_parts.split_parts(Labelled([*many, *many]), 0.25, "mine")
    sides = {part: {text for text, _ in found} for part, found in split.items()}
    kept = labelled_parts.split_parts(Labelled(many[100:], many[:100]), 0.25, "mine")

    assert not sides["train"] & sides["test"]
    assert not sides["train"] & sides["validation"]
    assert 0.18 < len(split["test"]) / 8000 < 0.22
    assert 0.23 < len(split["validation"]) / (8000 - len(split["test"])) < 0.27
    assert kept["test"] == many[:100]


def test_your_own_split_is_kept(tmp_path: Path) -> None:
    """Two files are the training and the test part. Oracle: their rows."""
    train = write_csv(tmp_path / "train.csv", pairs(), ("label", "text")[::-1])
    test = write_csv(tmp_path / "test.csv", pairs()[:7], ("text", "label"))

    text = prepared(tmp_path, f"{train},{test}")

    assert sum(text.counts["test"]) == 7
    assert sum(text.counts["train"]) + sum(text.counts["validation"]) == 60


def test_class_weights_balance_or_are_given() -> None:
    """Oracle: scikit-learn's formula, n / (classes * count)."""
    assert labelled_parts.weigh("none", ["a", "b"], [1, 3]) is None
    assert labelled_parts.weigh("balanced", ["a", "b"], [1, 3]) == [2.0, 4 / 6]
    assert labelled_parts.weigh({"b": 0.5}, ["a", "b"], [1, 3]) == [1.0, 0.5]
    with pytest.raises(UserError, match=r"names 'c', which is no class\. Classes: a, b"):
        labelled_parts.weigh({"c": 2.0}, ["a", "b"], [1, 3])


@pytest.mark.parametrize(
    ("columns", "rows", "said"),
    [
        (("text", "class"), pairs(), "no column 'label'; its columns: text, class"),
        (("text", "label"), [("a b", "x")] * 30, "empty|1 classes"),
    ],
)
def test_a_wrong_file_is_told_with_what_it_has(
    tmp_path: Path, columns: tuple[str, ...], rows: list[tuple[str, str]], said: str
) -> None:
    file = write_csv(tmp_path / "mine.csv", rows, columns)

    with pytest.raises(UserError, match=said):
        prepared(tmp_path, str(file))


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write_csv(tmp_path / "mine.csv", pairs(), ("text", "label"))

    with pytest.raises(UserError, match=r"Did you mean '.*mine\.csv'"):
        prepared(tmp_path, str(tmp_path / "mime.csv"))


def test_a_hub_data_set_needs_a_revision() -> None:
    with pytest.raises(UserError, match=r"names no revision.*hf:OWNER/NAME@REVISION"):
        hf("owner/name")


def test_tuning_and_its_report_look_at_different_texts(tmp_path: Path) -> None:
    """The halves of validation share no text and are all of it; train and test stay as they are."""
    file = str(write_csv(tmp_path / "mine.csv", pairs(), ("text", "label")))
    found = {
        part: prepared(tmp_path, file, held_out_part=part) for part in ("all", "tuning", "report")
    }
    seen = {}
    for part, made in found.items():
        ids, labels = (
            np.load(f"{made.evaluation['folder']}/{name}.npy") for name in ("input_ids", "labels")
        )
        rows = ids.reshape(-1, ids.shape[-1])[labels.flatten() >= 0]
        seen[part] = sorted(map(tuple, rows.tolist()))

    assert seen["tuning"]
    assert seen["report"]
    assert sorted(seen["tuning"] + seen["report"]) == seen["all"]
    assert not set(seen["tuning"]) & set(seen["report"])
    assert len({made.counts["train"][0] for made in found.values()}) == 1


@pytest.mark.parametrize(
    ("key", "value"), [("hidden_act", "relu"), ("model_type", "roberta"), ("layer_norm_eps", 1e-5)]
)
def test_a_checkpoint_of_another_function_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    """It would train as something else than it was; oracle: its own config.json."""
    file = write_csv(tmp_path / "mine.csv", pairs(), ("text", "label"))
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({key: value, "vocab_size": 99}))

    with pytest.raises(UserError, match=rf"{key} is {value!r}; only"):
        prepared(tmp_path, str(file), weights=f"checkpoint:{folder}")


def test_a_checkpoint_of_another_size_says_what_to_write(tmp_path: Path) -> None:
    """Oracle: the sizes in config.json."""
    file = write_csv(tmp_path / "mine.csv", pairs(), ("text", "label"))
    folder = tmp_path / "encoder"
    folder.mkdir()
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": 64, "type_vocab_size": 2}
    (folder / "config.json").write_text(json.dumps({**sizes, "vocab_size": 99}))
    (folder / "model.safetensors").write_bytes(b"")

    with pytest.raises(UserError, match=r"model = \{ hidden = 32, layers = 3, heads = 4"):
        prepared(tmp_path, str(file), weights=f"checkpoint:{folder}")
