"""The task of a workload: its keys, what it leaves of a cell, what it cannot run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench.axes import task_skips
from bertopt_bench.errors import MatrixError
from bertopt_bench.matrix.cells import expand
from bertopt_bench.matrix.forecast import describe_plan
from bertopt_bench.matrix.spec import load

if TYPE_CHECKING:
    from pathlib import Path

HEAD = '[workload]\ntask = "classification"\n'


def cells(tmp_path: Path, text: str) -> list[Any]:
    file = tmp_path / "matrix.toml"
    file.write_text(text)
    return expand(load(file))


def test_a_published_cell_keeps_its_id(tmp_path: Path) -> None:
    """Oracle: results/optimizers, whose plain SGD cell was run before tasks came."""
    text = (
        "[workload]\nsteps = 200\nevaluate_every = 40\n"
        '[axes]\noptimizer = "sgd"\nschedule = { name = "linear", warmup_fraction = 0.1 }\n'
        'regularizer = { name = "weight_decay", weight_decay = 0.01 }\n'
        '[axes.kernel]\noptimizer_step = "loop"\n'
    )

    assert [cell.id for cell in cells(tmp_path, text)] == ["22c5fbacbbdf"]


def test_a_classifier_has_its_own_keys_only(tmp_path: Path) -> None:
    """What it does not use tells no cells apart; a tokenizer that comes along has no size."""
    (trained,) = cells(tmp_path, HEAD)
    (other,) = cells(tmp_path, HEAD + 'mask_rate = 0.3\ncorpus = "news"\n')
    (pretrained,) = cells(tmp_path, HEAD + 'weights = "minilm"\nmodel = "minilm"\n')

    workload = trained.content["workload"]
    assert (workload["name"], workload["tokenizer"]) == ("classification", "trained")
    assert not {"task", "corpus", "mask_rate", "evaluation_batches"} & workload.keys()
    assert other.id == trained.id
    assert pretrained.content["workload"]["tokenizer"] == "minilm"
    assert not {"vocabulary_size", "lower_case"} & pretrained.content["workload"].keys()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('task = "clasification"', "must be one of mlm, classification"),
        ('dataset = "reuters"', "Did you mean 'reuters_r8'"),
        ('weights = "mini-lm"', "must be one of random, minilm or checkpoint:FOLDER"),
        ('weights = "checkpoint:"', "folder must follow"),
        ('tokenizer = "mine"', "must be one of own, minilm"),
        ("class_weights = 2", "must be one of none, balanced, or a table"),
        ("class_weights = { earn = -1 }", r"class_weights\.earn: is -1"),
        ('pooling = "max"', "must be one of mean, cls"),
    ],
)
def test_mistakes_are_told_with_what_is_allowed(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "matrix.toml"
    file.write_text(f"[workload]\n{line}\n")

    with pytest.raises(MatrixError, match=said):
        load(file)


def test_a_table_of_class_weights_is_one_level_and_has_a_label(tmp_path: Path) -> None:
    text = HEAD + 'class_weights = ["none", { grain = 3, ship = 1.5 }]\n'

    labels = [cell.label for cell in cells(tmp_path, text)]

    assert labels == ["none", "class_weights=(grain 3, ship 1.5)"]


@pytest.mark.parametrize(
    ("keys", "rule", "said"),
    [
        ('mode = "inference"', "classifier_infers_nothing", "MLM workload only"),
        ('layout = "packed"', "classifier_is_padded", "layout packed"),
        ('weights = "minilm"', "weights_of_another_model", "set model = 'minilm'"),
        (
            'weights = "checkpoint:x"\nposition_embedding = "sinusoidal"',
            "weights_of_another_model",
            "learned positions",
        ),
        (
            'weights = "checkpoint:x"\ntokenizer = "minilm"',
            "weights_of_another_tokenizer",
            "their own tokenizer",
        ),
        ('[axes.kernel]\nmlm_loss = "chunked"', "classifier_has_no_mlm_loss", "no MLM loss"),
        ('[axes.kernel]\ncuda_graph = "step"', "classifier_is_not_captured", "MLM workload"),
    ],
)
def test_what_a_classifier_cannot_run_is_skipped_with_its_reason(
    tmp_path: Path, keys: str, rule: str, said: str
) -> None:
    """The rule speaks of the cell, and is silent about a plain classifier and the MLM task."""
    (cell,) = cells(tmp_path, HEAD + keys + "\n")
    (plain,) = cells(tmp_path, HEAD)
    (mlm,) = cells(tmp_path, "seeds = [1]\n")
    check = getattr(task_skips, rule)

    assert said in check(cell.content, {})
    assert check(plain.content, {}) is None
    assert check(mlm.content, {}) is None


def test_a_plan_forecasts_a_classifier(tmp_path: Path) -> None:
    """MiniLM at 32 texts of 128 slots. By hand: 3 * 4096 * 6 * (8hh + 4hf + 4Sh) = 275.4 G."""
    file = tmp_path / "matrix.toml"
    file.write_text(HEAD + 'weights = "minilm"\nmodel = "minilm"\nseq_len = 128\nbatch_size = 32\n')
    matrix = load(file)

    assert "275.42" in describe_plan(matrix, expand(matrix)).split("GFLOP")[0]
