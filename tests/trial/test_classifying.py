"""A classifier's trial: it is restored exactly, its loss is torch's mean, its test comes last."""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from bertopt_bench.matrix.tasks import shape_workload
from bertopt_bench.trial import worker
from bertopt_bench.trial.assemble import assemble
from bertopt_bench.workload import formulas
from bertopt_bench.workload.memory_formulas import memory_forecast

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEPS, BATCH, LENGTH, VOCABULARY = 6, 4, 12, 64
CLASSES = ["few", "many", "some"]
LABELLED = {
    "name": "classification",
    "dataset": "reuters_r8",
    "weights": "random",
    "tokenizer": "trained",
    "pooling": "mean",
    "criterion": "cross_entropy",
    "class_weights": "none",
}


def write_labelled(folder: Path, count: int, seed: int, *, fill: bool = False) -> dict[str, str]:
    """Write random batches in the format of the workload room; ``fill``: the last row is none."""
    draw = np.random.default_rng(seed)
    folder.mkdir()
    lengths = draw.integers(4, LENGTH + 1, (count, BATCH)).astype(np.int32)
    ids = draw.integers(5, VOCABULARY, (count, BATCH, LENGTH)).astype(np.int32)
    ids[np.arange(LENGTH) >= lengths[..., None]] = 0
    labels = draw.integers(0, len(CLASSES), (count, BATCH))
    if fill:
        labels[-1, -1] = -100
    for name, array in (("input_ids", ids), ("lengths", lengths), ("labels", labels)):
        np.save(folder / f"{name}.npy", array)
    return {"folder": str(folder), "sha256": f"{seed}" * 64}


@pytest.fixture
def make(
    make_request: Callable[..., dict[str, Any]], tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Give a function that makes a classifier's request."""
    text = {
        "vocabulary_size": VOCABULARY,
        "classes": CLASSES,
        "counts": {"train": [4, 12, 8]},
        "class_weights": None,
        "weights_folder": "",
        "weights_sha256": None,
        "batches": {"1": write_labelled(tmp_path / "train", STEPS, 1)},
        "evaluation": write_labelled(tmp_path / "validation", 2, 2, fill=True),
        "test": write_labelled(tmp_path / "test", 3, 3, fill=True),
    }

    def made(workload: dict[str, Any] | None = None, **axes: Any) -> dict[str, Any]:
        weights = axes.pop("class_weights", None)
        request = make_request(axes.pop("sizes", None), **axes)
        keys = {**request["cell"]["workload"], "task": "classification", **LABELLED}
        request["cell"]["workload"] = shape_workload({**keys, **(workload or {})})
        request["text"] = {**text, "class_weights": weights}
        return request

    return made


def messages(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a trial as a worker does; give what it sends."""
    sent: list[dict[str, Any]] = []
    request["dispatched_ns"] = monotonic_ns()
    worker.run_trial(request, sent.append, [0])
    return sent


def test_a_trial_ends_with_one_look_at_the_test_part(make: Callable[..., Any]) -> None:
    """Its figures are those of the trained network on the files. Oracle: a pass by hand."""
    request = make(optimizer={"name": "adamw", "lr": 0.01})
    sent = messages(request)
    result, looks = sent[-1], [one for one in sent if one["kind"] == "evaluation"]
    trial = assemble(request)
    for index in range(STEPS):
        trial.step(index)
    trial.model.eval()
    ids, lengths, labels = (
        np.load(f"{request['text']['test']['folder']}/{name}.npy").reshape(12, -1).squeeze()
        for name in ("input_ids", "lengths", "labels")
    )
    mask = torch.from_numpy(np.arange(LENGTH) < lengths[:, None])[:, None, None, :]
    with torch.no_grad():
        logits = trial.model(torch.from_numpy(ids), mask)[:11].double()
    truth = torch.from_numpy(labels)[:11]

    seen = result["classification"]
    assert result["status"] == "ok"
    assert seen["loss"] == pytest.approx(functional.cross_entropy(logits, truth).item(), abs=1e-6)
    assert seen["accuracy"] == (logits.argmax(1) == truth).double().mean().item()
    assert sum(map(sum, seen["confusion"])) == sum(b["count"] for b in seen["calibration"]) == 11
    assert [sum(map(sum, one["confusion"])) for one in looks] == [7] * len(looks)
    assert result["host_syncs_per_step"] == 0


def write_words(file: Path) -> str:
    """Write a tokenizer whose token of number n is word n."""
    from tokenizers import Tokenizer, models

    words = {f"word{number}": number for number in range(5, VOCABULARY)}
    specials = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    Tokenizer(models.WordLevel({**specials, **words})).save(str(file))
    return str(file)


def test_predictions_are_explained_token_by_token(make: Callable[..., Any], tmp_path: Path) -> None:
    """Of texts of the test part, mistakes first; nothing of it changes training.

    Oracle: each text's logits by hand, and of integrated gradients the axiom of completeness.
    """
    request = make(optimizer={"name": "adamw", "lr": 0.01})
    plain = messages(dict(request))[-1]
    request["text"]["tokenizer_file"] = write_words(tmp_path / "tokenizer.json")
    request["measure"] = {"explained_texts": 4}
    result = messages(request)[-1]
    trial = assemble(request)
    for index in range(STEPS):
        trial.step(index)
    trial.model.eval()

    assert result["classification"] == plain["classification"]
    assert "explained" not in plain
    assert len(result["explained"]) == 4
    wrong = [one["predicted"] != one["true"] for one in result["explained"]]
    assert wrong == sorted(wrong, reverse=True)
    for one in result["explained"]:
        assert len(one["tokens"]) == len(one["scores"]) <= LENGTH
        ids = torch.tensor([[int(token.removeprefix("word")) for token in one["tokens"]]])
        with torch.no_grad():
            logits = trial.model(ids, None)[0]
            blank = trial.model(torch.zeros_like(ids), None)[0]
        told = int(logits.argmax())
        assert told == one["predicted"]
        assert one["probability"] == pytest.approx(logits.softmax(0)[told].item(), abs=1e-5)
        assert one["change"] == pytest.approx((logits - blank)[told].item(), abs=1e-5)
        if one["method"] == "integrated_gradients":
            assert sum(one["scores"]) == pytest.approx(one["change"], abs=0.01)


def test_nothing_is_tested_before_the_schedule_ends(make: Callable[..., Any]) -> None:
    request = make()
    request["steps"] = STEPS - 2  # a timing replicate

    assert "classification" not in messages(request)[-1]


@pytest.mark.parametrize(
    "axes",
    [
        {"regularizer": [{"name": "dropout", "attention_dropout": 0.0}, "label_smoothing"]},
        {"optimizer": "muon", "regularizer": ["ema"]},
        {"attention": "math"},
        {"checkpointing": "layers"},
    ],
)
def test_training_after_burn_in_and_restore_is_training_without(
    make: Callable[..., Any], axes: dict[str, Any]
) -> None:
    """Bit for bit. Oracle: a second trial that only trains."""
    request = make({"pooling": "cls"}, schedule="constant", **axes)
    ends = []
    for burnt in (True, False):
        trial = assemble(request)
        if burnt:
            for index in range(3):
                trial.step(index)
            trial.evaluate()
            trial.drain()
            trial.restore()
        for index in range(STEPS):
            trial.step(index)
        ends.append((trial.drain(), trial.evaluate()))
        trial.close()

    assert ends[0] == ends[1]


def test_a_weighted_loss_is_torchs_weighted_mean_in_any_micro_batches(
    make: Callable[..., Any],
) -> None:
    """Oracle: torch's cross_entropy with weights, reduced to the mean over the whole batch."""
    weights = [3.0, 0.5, 1.0]
    losses = []
    for parts in (1, 2):
        trial = assemble(make({"micro_batches": parts}, class_weights=weights))
        whole = trial.batches
        trial.step(0)
        losses += trial.drain()
    trial = assemble(make({}, class_weights=weights))
    batch = trial.fetch(0, 0)
    expected = functional.cross_entropy(trial.logits(batch), batch.labels, torch.tensor(weights))

    assert whole.micro_batches == 2
    assert losses == pytest.approx([expected.item()] * 2, rel=1e-6)


@pytest.mark.parametrize(("precision", "optimizer"), [("fp32", "adamw"), ("bf16", "momentum")])
def test_the_memory_forecast_is_within_15_percent(
    make: Callable[..., Any], precision: str, optimizer: str
) -> None:
    """Oracle: the peak that the traced step allocates; the bar is that of ``plan --max-memory``."""
    sizes = {"hidden": 64, "layers": 3, "heads": 4, "intermediate": 256}
    request = make({"model": sizes}, precision=precision, optimizer=optimizer)
    result = messages(request)[-1]

    forecast = memory_forecast(request["cell"]).peak_bytes

    assert formulas.model_size(sizes).layers == 3
    assert forecast == pytest.approx(result["peak_memory_bytes"], rel=0.15)
