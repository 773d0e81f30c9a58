"""Tables: what a row says, what it leaves open, and the exports."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from made_records import (
    SESSION,
    STEPS,
    ceiling,
    content,
    evaluation,
    record,
    session,
    write,
)

from bertopt_bench.errors import UserError
from bertopt_bench.results.record import Record, Session
from bertopt_bench.results.rows import epochs_seen
from bertopt_bench.results.tables import Results, export, load_results


def results(*records: dict[str, Any], ceilings: tuple[dict[str, Any], ...] = ()) -> Results:
    stripped = [{k: v for k, v in one.items() if k != "kind"} for one in ceilings]
    sessions = (Session.model_validate(session(ceilings=stripped)),)
    made = tuple(Record.model_validate(one) for one in records)
    return Results(Path("made"), sessions, made, ())


def row(*records: dict[str, Any], **more: Any) -> dict[str, Any]:
    trials = results(*records, **more).trials
    assert len(trials) == 1
    return dict(trials.iloc[0])


def test_rates_are_work_by_summed_time() -> None:
    """Oracle: by hand: 6 steps of 0.5 s, 61 real tokens and 64 slots each, 1,000 FLOPs."""
    one = row(
        record(step_seconds=[0.5] * 6, real_tokens=[61] * 6, flops_per_step=1000),
        ceilings=(ceiling(1e4), ceiling(2e4), ceiling(9e4, device="cuda")),
    )

    assert one["train_seconds"] == 3.0
    assert one["tokens_per_second"] == 61 * 6 / 3.0
    assert one["slot_tokens_per_second"] == 64 * 6 / 3.0
    assert one["model_flops_per_second"] == 2000.0
    assert one["ceiling_share"] == 0.1  # of the highest fp32 rate of this session's CPU


def test_padding_is_what_slots_hold_no_token() -> None:
    """Oracle: by hand: 61 of 64 slots; packed steps of 48 and 64 slots with 40 tokens each."""
    steps = {"slot_tokens": [48, 64] * 3, "head_slots": [6] * 6, "attended_pairs": [420] * 6}
    packed = record(
        content(workload={"layout": "packed"}),
        step_seconds=[0.5] * 6,
        real_tokens=[40] * 6,
        slot_tokens_per_step=56,
        ragged=steps,
    )
    (first, second) = results(record(real_tokens=[61] * 6), packed).trials.to_dict("records")
    padded, other = sorted((first, second), key=lambda row: row["layout"], reverse=True)

    assert (padded["layout"], other["layout"]) == ("padded", "packed")
    assert padded["padding_share"] == pytest.approx(3 / 64)
    assert other["padding_share"] == pytest.approx(1 - 40 / 56)
    assert other["tokens_per_second"] == 80
    assert other["slot_tokens_per_second"] == 112


def test_a_limit_is_its_whole_devices(tmp_path: Path) -> None:
    """Oracle: by hand: 1,000 FLOPs in half a second; one thread's limit is not eight's."""
    few, many = ({"name": "cpu", "threads": threads} for threads in (1, 8))
    cells = [content(device=device) for device in (few, many)]
    timed = {"step_seconds": [0.5] * 6, "flops_per_step": 1000}
    ceilings = (ceiling(1e4, device=few), ceiling(8e4, device=many), ceiling(4e4, device=many))
    made = results(*(record(cell, **timed) for cell in cells), ceilings=ceilings)

    shares = dict(zip(made.trials["device.threads"], made.trials["ceiling_share"], strict=True))
    assert shares == {1: 0.2, 8: 0.025}
    path = write(tmp_path / "made", record(cells[0], **timed))  # its event has the name only
    assert list(load_results(path).trials["ceiling_share"]) == [2e3 / 1e11]


def test_step_times_are_median_mean_and_tenths() -> None:
    """Oracle: NumPy's percentiles (linear) of the same samples."""
    import numpy as np

    seconds = [0.4, 0.1, 0.9, 0.2, 0.3, 0.35]
    one = row(record(step_seconds=seconds))

    assert one["step_seconds"] == np.median(seconds)
    assert one["step_seconds_mean"] == pytest.approx(np.mean(seconds), rel=1e-12)
    assert one["step_seconds_p10"] == pytest.approx(np.percentile(seconds, 10), rel=1e-12)
    assert one["step_seconds_p90"] == pytest.approx(np.percentile(seconds, 90), rel=1e-12)
    assert one["timed_steps"] == 6


def test_final_loss_is_the_one_at_the_planned_end_only() -> None:
    """Oracle: the reference: before T a schedule has not done its work, so nothing is final."""
    whole = row(record())
    timing = row(record(steps=3, replicate=1))
    stopped = row(record(status="diverged", reason="r", evaluations=[evaluation(0)]))

    assert whole["final_loss"] == evaluation(STEPS)["loss"]
    assert whole["best_loss"] == evaluation(STEPS)["loss"]
    assert whole["final_masked_accuracy"] == evaluation(STEPS)["masked_accuracy"]
    assert math.isnan(timing["final_loss"])
    assert math.isnan(timing["best_loss"])
    assert math.isnan(stopped["final_loss"])
    assert stopped["best_loss"] == evaluation(0)["loss"]
    assert timing["steps"] == 3


def test_best_loss_passes_over_what_is_not_finite() -> None:
    """Oracle: min of the two finite losses."""
    seen = [evaluation(0, 6.0), evaluation(3, math.nan), evaluation(6, 5.5)]

    assert row(record(evaluations=seen))["best_loss"] == 5.5


def test_a_skipped_trial_has_a_row_with_its_reason_and_no_numbers() -> None:
    """Oracle: the design: a record with a status and a reason, never a hole."""
    full = record()
    kept = ("session", "cell_id", "cell", "seed", "replicate", "steps", "code")
    one = row({**{key: full[key] for key in kept}, "status": "skipped", "reason": "no GPU"})

    assert (one["status"], one["reason"], one["optimizer"]) == ("skipped", "no GPU", "adamw")
    numbers = ("step_seconds", "tokens_per_second", "peak_memory_bytes", "final_loss")
    assert all(math.isnan(one[name]) for name in numbers)


def test_levels_say_the_options_that_vary_and_options_have_columns() -> None:
    """Oracle: the contract's words on the columns of ``trials``."""
    slow, fast = ({"name": "adamw", "lr": lr, "betas": [0.9, 0.99]} for lr in (1e-4, 1e-3))
    regularizer = [{"name": "l1", "l1": 0.1}, {"name": "ema", "decay": 0.9}]
    made = [
        record(content(optimizer=slow)),
        record(content(optimizer=fast, regularizer=regularizer)),
        record(content(optimizer={"name": "sgd", "lr": 0.5})),
    ]
    trials = results(*made).trials.set_index("optimizer")

    assert set(trials.index) == {"adamw lr=0.0001", "adamw lr=0.001", "sgd"}
    fast_row = trials.loc["adamw lr=0.001"]
    assert fast_row["regularizer"] == "l1 + ema"
    assert fast_row["label"] == "adamw lr=0.001 · l1 + ema"
    assert fast_row["optimizer.lr"] == 1e-3
    assert fast_row["optimizer.betas"] == "[0.9, 0.99]"
    assert fast_row["regularizer.l1.l1"] == 0.1
    assert math.isnan(trials.loc["sgd"]["regularizer.ema.decay"])
    assert fast_row["model"] == "L1 H16 A2 I32"
    assert fast_row["kernel.compile"] == "off"


def test_the_latest_record_of_a_trial_counts() -> None:
    """Oracle: two records of one trial: a rerun on a later day, wherever the line stands."""
    old = record(started_utc="2026-11-24T00:00:00+00:00", losses=[9.0] * 6)
    new = record(started_utc="2026-11-25T00:00:00+00:00", losses=[1.0] * 6)

    for order in ([old, new], [new, old]):
        made = results(*order)
        assert set(made.steps["loss"]) == {1.0}
        assert len(made.records) == 2


def test_times_of_two_sessions_stay_apart() -> None:
    """Oracle: two rows, each with its own session's ceiling."""
    first = Session.model_validate(session(ceilings=[ceiling(1e4)["values"] | ceiling(1e4)]))
    one = Record.model_validate(record(flops_per_step=100, step_seconds=[1.0] * 6))
    other = one.model_copy(update={"session": "later", "replicate": 1})
    plain = {k: v for k, v in ceiling(1e3).items() if k != "kind"}
    second = Session.model_validate(session(session="later", ceilings=[plain]))
    first = Session.model_validate(
        session(ceilings=[{k: v for k, v in ceiling(1e4).items() if k != "kind"}])
    )
    trials = Results(Path("made"), (first, second), (one, other), ()).trials

    assert dict(zip(trials["session"], trials["ceiling_share"], strict=True)) == {
        SESSION: 0.01,
        "later": 0.1,
    }


def test_steps_and_evaluations_join_the_trials_by_their_code() -> None:
    """Oracle: the samples of each record, found again by seed."""
    made = results(*(record(seed=seed, losses=[float(seed)] * 6) for seed in (4, 2, 3)))
    codes = made.trials.set_index("trial")["seed"]

    joined = made.steps.join(codes, on="trial")
    assert (joined["loss"] == joined["seed"]).all()
    assert list(made.steps[made.steps["trial"] == 0]["step"]) == [1, 2, 3, 4, 5, 6]
    seen = made.evaluations[made.evaluations["trial"] == 1]
    assert list(seen["step"]) == [0, 3, 6]
    tokens = record()["real_tokens"]
    assert list(seen["tokens"]) == [0, sum(tokens[:3]), sum(tokens)]


def test_a_killed_trial_keeps_the_losses_it_told() -> None:
    """Oracle: three losses without a step time; no invented numbers."""
    told = record(
        status="timed_out", reason="r", losses=[6.0, 5.9, 5.8], step_seconds=[], real_tokens=[],
        evaluations=[evaluation(0), evaluation(3)],
    )  # fmt: skip
    made = results(told)

    assert list(made.steps["loss"]) == [6.0, 5.9, 5.8]
    assert made.steps["step_seconds"].isna().all()
    assert math.isnan(made.evaluations["tokens"].iloc[1])
    assert math.isnan(made.trials["tokens_per_second"].iloc[0])


def test_an_empty_folder_has_empty_tables(tmp_path: Path) -> None:
    """Oracle: a session that ended before its first trial."""
    made = load_results(write(tmp_path / "made"))

    assert [len(made.trials), len(made.steps), len(made.evaluations)] == [0, 0, 0]
    assert "cell_id" in made.trials.columns


def test_codes_and_order_do_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    """Oracle: the same frames from the records written backwards."""
    cells = [content(optimizer=name) for name in ("sgd", "adamw", "lion")]
    made = [record(cell, seed=seed) for cell in cells for seed in (2, 1)]
    frames = [
        load_results(write(tmp_path / str(index), *order)).trials
        for index, order in enumerate((made, made[::-1]))
    ]

    pd.testing.assert_frame_equal(*frames)
    assert list(frames[0]["trial"]) == [0, 1, 2, 3, 4, 5]
    assert list(frames[0]["label"]) == ["adamw"] * 2 + ["lion"] * 2 + ["sgd"] * 2


def test_the_records_file_may_be_named_instead_of_its_folder(tmp_path: Path) -> None:
    """Oracle: the same trials."""
    folder = write(tmp_path / "made", record())

    assert len(load_results(folder / "records.jsonl").trials) == 1
    assert len(load_results(str(folder)).trials) == 1


def test_csv_and_json_and_parquet_hold_the_same_table(tmp_path: Path) -> None:
    """Oracle: pandas' own readers; an option that is a number here and a text there."""
    made = results(
        record(content(schedule={"name": "a:b", "x": 1.5})),
        record(content(schedule={"name": "a:b", "x": "many"})),
        record(content(schedule={"name": "linear", "x": None})),
    )
    for table in ("trials", "steps", "evaluations"):
        frame = getattr(made, table)
        for form in ("csv", "json", "parquet"):
            export(frame, form, tmp_path / "deep" / f"{table}.{form}")
        csv = pd.read_csv(tmp_path / f"deep/{table}.csv")
        parquet = pd.read_parquet(tmp_path / f"deep/{table}.parquet")
        listed = json.loads((tmp_path / f"deep/{table}.json").read_text())

        assert list(csv.columns) == list(parquet.columns) == list(listed[0]) == list(frame.columns)
        for name in frame.columns:
            if frame[name].dtype.kind == "f":
                pd.testing.assert_series_equal(csv[name], frame[name], check_exact=True)
                pd.testing.assert_series_equal(parquet[name], frame[name], check_exact=True)
    parquet = pd.read_parquet(tmp_path / "deep/trials.parquet")
    assert set(parquet["schedule.x"].dropna()) == {"1.5", "many"}


def test_markdown_is_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: by hand: a head, a rule, a line a trial; a bar in a reason is escaped."""
    made = results(record(seed=1), record(seed=2, status="failed", reason="a | b\nc"))
    export(made.trials, "markdown")
    lines = capsys.readouterr().out.splitlines()

    assert len(lines) == 4
    assert lines[0].startswith("| label | cell_id | seed |")
    assert set(lines[1]) == set("| -:")
    assert "a \\| b c" in lines[3]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_exports_refuse_what_they_cannot_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the house rule on errors: nearest name, what to do."""
    frame = results(record()).steps
    with pytest.raises(UserError, match="Did you mean 'csv'"):
        export(frame, "cvs")
    with pytest.raises(UserError, match="--output"):
        export(frame, "parquet")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        export(frame, "csv", tmp_path / "file" / "steps.csv")

    def without_pyarrow(*_: object, **__: object) -> None:
        raise ImportError("no pyarrow")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", without_pyarrow)
    with pytest.raises(UserError, match=r"pip install 'bertopt-bench\[parquet\]'"):
        export(frame, "parquet", tmp_path / "steps.parquet")


def test_epochs_seen_counts_word_pieces_alone() -> None:
    """Oracle: by hand: 4 sequences a step, 2 steps, 10 real tokens each of which 2 are marks."""
    cell = content(workload={"batch_size": 4, "steps": 2})
    told = {"real_tokens": (40, 40), "losses": (1.0, 1.0), "steps": 2}
    one = Record.model_validate(record(cell, **told, train_tokens=32))

    assert epochs_seen(one) == 2.0
    assert math.isnan(epochs_seen(one.model_copy(update={"train_tokens": None})))


def test_a_classifiers_epochs_count_texts() -> None:
    """Oracle: by hand: 2 steps of 4 texts, of 16."""
    told = {"masked_tokens": (4, 4), "losses": (1.0, 1.0), "steps": 2}
    one = Record.model_validate(record(content(workload={"steps": 2}), **told))
    tested: Any = SimpleNamespace(training_counts=(12, 4))

    assert epochs_seen(one.model_copy(update={"classification": tested})) == 0.5
