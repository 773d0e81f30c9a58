"""What a duel declares besides its arms: read from [duel], and from the command line over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench.errors import UserError
from bertopt_bench.matrix.duels import Settings, check_series, read_settings, session_seeds

if TYPE_CHECKING:
    from pathlib import Path


def read(folder: Path, duel: str = "", **given: Any) -> Settings:
    file = folder / "some.toml"
    file.write_text(f"name = 'some'\n[duel]\n{duel}")
    return read_settings(file, given)


def test_what_nobody_says_is_the_protocols_default(tmp_path: Path) -> None:
    """Oracle: measurement.md 4.1 and 4.3: 12 replicates, alpha .01, 5 % a family, margin 2 %."""
    settings = read(tmp_path)

    assert settings.metrics == ("step_time",)
    assert (settings.replicates, settings.looks) == (12, (12,))
    assert (settings.alpha, settings.family_error, settings.sides) == (0.01, 0.05, 2)
    assert dict(settings.margins)["step_time"] == 0.02
    assert dict(settings.margins)["loss"] is None
    assert settings.block_seconds >= 0.5
    assert 6 <= settings.rounds <= 8


def test_the_command_line_wins_over_the_file_and_none_says_nothing(tmp_path: Path) -> None:
    """Oracle: by hand."""
    written = "metric = 'peak_memory'\nalpha = 0.05\nreplicates = 8\nmargin = '3%'\n"
    settings = read(tmp_path, written, alpha=0.02, replicates=None, budget="5m")

    assert settings.metrics == ("peak_memory",)
    assert (settings.alpha, settings.replicates, settings.budget_seconds) == (0.02, 8, 300.0)
    assert dict(settings.margins)["peak_memory"] == 0.03


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_one_margin_is_of_every_declared_metric_in_whatever_order_they_are_written(
    tmp_path: Path, order: tuple[int, int]
) -> None:
    """Oracle: TOML's tables have no order: the same settings from both."""
    lines = ["metric = ['peak_memory', 'time_to_target']\n", "margin = '5%'\n"]
    settings = read(tmp_path, "".join(lines[i] for i in order))

    margins = dict(settings.margins)
    assert (margins["peak_memory"], margins["time_to_target"]) == (0.05, 0.05)
    assert margins["step_time"] == 0.02


def test_margins_may_be_a_table_and_a_loss_is_in_nats(tmp_path: Path) -> None:
    """Oracle: by hand; 1.5 nats is no share and allowed."""
    settings = read(tmp_path, "margin = {step_time = '1%', loss = 1.5}\n")
    assert dict(settings.margins)["step_time"] == 0.01
    assert dict(settings.margins)["loss"] == 1.5
    assert dict(read(tmp_path, metric="loss", margin="0.012").margins)["loss"] == 0.012


@pytest.mark.parametrize("table", ["", "metric = 'step_time'\n"])
def test_one_margin_of_a_matrix_is_of_the_metrics_that_the_command_line_asks_for(
    tmp_path: Path, table: str
) -> None:
    """Oracle: the same metrics written in the matrix itself."""
    asked = read(tmp_path, f"{table}margin = '4%'\n", metric=["peak_memory", "time_to_target"])
    written = read(tmp_path, "metric = ['peak_memory', 'time_to_target']\nmargin = '4%'\n")

    assert asked == written
    assert dict(asked.margins)["peak_memory"] == dict(asked.margins)["time_to_target"] == 0.04


def test_a_margin_by_metric_stays_with_its_metrics(tmp_path: Path) -> None:
    """Oracle: by hand: a table says of which metric each margin is."""
    margins = dict(read(tmp_path, "margin = {step_time = '4%'}\n", metric="peak_memory").margins)

    assert (margins["step_time"], margins["peak_memory"]) == (0.04, 0.01)


def test_a_share_in_the_matrix_is_no_margin_of_a_loss_unless_it_is_given_over(
    tmp_path: Path,
) -> None:
    """Oracle: by hand: a loss' margin is in nats; the command line's goes over the matrix'."""
    with pytest.raises(UserError, match=r"some\.toml: duel\.margin: is '4%'.* nats"):
        read(tmp_path, "margin = '4%'\n", metric="loss")
    for given in ("0.03", {"loss": 0.03}):
        settings = read(tmp_path, "margin = '4%'\n", metric="loss", margin=given)
        assert dict(settings.margins)["loss"] == 0.03


@pytest.mark.parametrize(
    ("duels", "injected", "words"),
    [
        (-1, 6, r"--duels -1: .* must be 0 or more"),
        (12, -2, r"--injected -2: .* must be 0 or more"),
        (0, 0, "--duels 0 and --injected 0 leave nothing to measure.* 1 or more"),
    ],
)
def test_a_series_of_no_duels_is_refused(duels: int, injected: int, words: str) -> None:
    """Oracle: the house rule: what came, what is allowed."""
    with pytest.raises(UserError, match=words):
        check_series(duels, injected)


@pytest.mark.parametrize(("duels", "injected"), [(1, 0), (0, 1), (12, 6)])
def test_a_series_of_one_kind_alone_is_none_to_refuse(duels: int, injected: int) -> None:
    """Oracle: by hand: there is something to run."""
    check_series(duels, injected)


def test_until_looks_at_the_preset_numbers_only(tmp_path: Path) -> None:
    """Oracle: the protocol's three looks; a fixed number beside it would be a fourth."""
    settings = read(tmp_path, until="±1%")

    assert (settings.until, settings.looks) == (pytest.approx(0.01), (10, 20, 30))
    with pytest.raises(UserError, match="replicates and until are both given"):
        read(tmp_path, "replicates = 12\n", until="1%")


@pytest.mark.parametrize(
    ("written", "given", "words"),
    [
        ("replicate = 8\n", {}, r"some\.toml: duel\.replicate: .*Did you mean 'replicates'"),
        ("metric = 'step_tim'\n", {}, "Did you mean 'step_time'"),
        ("metric = []\n", {}, "is empty; name one or more of step_time"),
        ("margin = {step_tim = 1}\n", {}, "Did you mean 'step_time'"),
        ("margin = 2\n", {}, "must be at least 0 and below 100 %"),
        ("", {"margin": "2"}, r"command line: margin: is '2'"),
        ("", {"margin": "two"}, "must be a share such as '2%'"),
        ("", {"margin": "-1%"}, "must be a share"),
        ("", {"metric": "loss", "margin": "2%"}, r"margin: is '2%'.*a number"),
        ("", {"metric": "loss", "margin": "nan"}, "margin: is nan"),
        ("", {"alpha": 0.5}, "alpha: is 0.5"),
        ("", {"alpha": 0.0}, "alpha: is 0.0"),
        ("", {"alpha": float("nan")}, "alpha: is nan"),
        ("", {"replicates": 0}, "of at least 1"),
        ("replicates = 12.0\n", {}, "a whole number"),
        ("rounds = 1\n", {}, "of at least 2"),
        ("", {"budget": "5 days"}, "must be a duration"),
        ("", {"until": "0.5 nats"}, "must be a share"),
        ("target = 0\n", {}, "above 0"),
        ("alternate = 1\n", {}, "true or false"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_place(
    tmp_path: Path, written: str, given: dict[str, Any], words: str
) -> None:
    """Oracle: the house rule: where, what came, what is allowed, the nearest name."""
    with pytest.raises(UserError, match=words):
        read(tmp_path, written, **given)


def test_a_duel_that_is_no_table_is_refused(tmp_path: Path) -> None:
    """Oracle: the key's place."""
    file = tmp_path / "some.toml"
    file.write_text("duel = 3\n")
    with pytest.raises(UserError, match=r"duel: is 3 .*must be a table"):
        read_settings(file, {})


def test_a_gates_second_session_trains_on_seeds_of_its_own() -> None:
    """Oracle: sets: no seed of one session is in another, and the first has the matrix' own."""
    seeds = (0, 3, 7)
    sessions = [session_seeds(seeds, number) for number in (1, 2, 3)]

    assert sessions[0] == seeds
    assert len({seed for session in sessions for seed in session}) == 9
