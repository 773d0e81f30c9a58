"""Shares, durations and sizes as people write them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertopt_bench.errors import UserError
from bertopt_bench.matrix.quantities import read_bytes, read_limit, read_seconds, read_share


@pytest.mark.parametrize(
    ("value", "share"),
    [
        ("5%", 0.05),
        ("±1%", 0.01),
        ("+-1 %", 0.01),
        (" 0.02 ", 0.02),
        (0.02, 0.02),
        (0, 0.0),
        ("0", 0.0),
        (".5%", 0.005),
        ("99.9%", 0.999),
    ],
)
def test_shares_are_read_in_every_spelling(value: Any, share: float) -> None:
    """Oracle: by hand; the issue's own ``5%`` and ``±1%``."""
    assert read_share(value, UserError) == pytest.approx(share, abs=1e-15)


@pytest.mark.parametrize(
    "value",
    [
        "5",
        "100%",
        1,
        1.0,
        -0.1,
        "-5%",
        "5%%",
        "five",
        "",
        "5 percent",
        True,
        None,
        math.nan,
        "1e-2",
    ],
)
def test_what_is_no_share_below_one_is_refused_and_named(value: Any) -> None:
    """Oracle: the house rule: what came stands in the error; 5 for 5 % is a factor of a hundred."""
    with pytest.raises(UserError) as caught:
        read_share(value, UserError)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("90s", 90), ("5m", 300), ("5 min", 300), ("1.5h", 5400), ("90", 90), (90, 90), (0.5, 0.5)],
)
def test_durations_are_read_in_every_unit(value: Any, seconds: float) -> None:
    """Oracle: by hand; the issue's own ``5m``."""
    assert read_seconds(value, UserError) == seconds


@pytest.mark.parametrize("value", ["", "0", 0, -1, "-5m", "5 minutes", "5d", True, None, "m"])
def test_what_is_no_duration_is_refused_and_named(value: Any) -> None:
    """Oracle: the house rule: what came stands in the error."""
    with pytest.raises(UserError) as caught:
        read_seconds(value, UserError)
    assert repr(value) in str(caught.value)


@given(st.integers(0, 9999))
def test_a_per_cent_and_its_number_are_one_share(hundredths: int) -> None:
    """Oracle: a hundredth of it."""
    assert read_share(f"{hundredths / 100}%", UserError) == pytest.approx(hundredths / 10_000)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("16GiB", 16 * 2**30),
        ("800MiB", 800 * 2**20),
        ("2e9", 2_000_000_000),
        (2e9, 2_000_000_000),
        ("1.5 GB", 1_500_000_000),
        ("4 kib", 4096),
        ("512B", 512),
        (".5TiB", 2**39),
        ("1e-3 GB", 1_000_000),
    ],
)
def test_sizes_are_read_in_every_unit(value: Any, size: int) -> None:
    """Oracle: by hand: GB is 1000 ** 3 and GiB 1024 ** 3 bytes."""
    assert read_bytes(value, UserError) == size


@pytest.mark.parametrize("value", ["", "0", 0, -1, "-1GiB", "GiB", "16 Gi B", True, None, math.nan])
def test_what_is_no_size_is_refused_and_named(value: Any) -> None:
    """Oracle: the house rule: what came stands in the error."""
    with pytest.raises(UserError) as caught:
        read_bytes(value, UserError)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", ["16", 16, "1e5", " 800 "])
def test_a_limit_without_a_unit_is_no_handful_of_bytes(value: Any) -> None:
    """Oracle: the house rule: what came, and what to write in its place."""
    with pytest.raises(UserError) as caught:
        read_limit(value)

    written = str(value).strip()
    assert str(caught.value).startswith(f"--max-memory is {value!r}; without a unit")
    assert f"Write {written}GiB" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "size"), [("16B", 16), ("1 kib", 1024), ("2e9", 2e9), (2**20, 2**20), (None, None)]
)
def test_a_limit_that_says_what_it_means_is_read(value: Any, size: int | None) -> None:
    """Oracle: by hand; a number without a unit is bytes from a MiB on."""
    assert read_limit(value) == size


def test_a_unit_that_is_none_is_named_with_those_there_are() -> None:
    """Oracle: the house rule: what is allowed, and the nearest."""
    with pytest.raises(UserError, match=r"no unit 'GBi'.*KiB.*Did you mean 'G"):
        read_bytes("16GBi", UserError)
