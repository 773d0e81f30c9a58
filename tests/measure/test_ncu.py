"""What Nsight Compute counted is read from its CSV, in both of its layouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bertopt_bench.errors import UserError
from bertopt_bench.measure.ncu import BYTES, FLOPS, SECONDS, read_counted

if TYPE_CHECKING:
    from pathlib import Path

HEADER = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size",'
    '"Grid Size","Device","CC","Section Name","Metric Name","Metric Unit","Metric Value"'
)
READ, WRITTEN = BYTES
FFMA = "smsp__sass_thread_inst_executed_op_ffma_pred_on.sum"
TENSOR = "sm__ops_path_tensor_src_bf16_dst_fp32.sum"


def row(identity: int, kernel: str, metric: str, unit: str, value: str) -> str:
    fields = [identity, 2583, "python3.11", "127.0.0.1", kernel, 1, 7, "(256, 1, 1)", "(1, 1, 1)",
              0, "9.0", "Command line profiler metrics", metric, unit, value]  # fmt: skip
    return ",".join(f'"{field}"' for field in fields)


DETAILS = "\n".join(
    [
        "==PROF== Connected to process 2583",
        '==PROF== Profiling "gemm" - 0: 0%....50%....100% - 8 passes',
        HEADER,
        row(0, "gemm", SECONDS, "nsecond", "2,000"),
        row(0, "gemm", READ, "byte", "2,816"),
        row(0, "gemm", WRITTEN, "Kbyte", "1.5"),
        row(0, "gemm", FFMA, "inst", "1,000"),
        row(0, "gemm", TENSOR, "", "40,000"),
        row(1, "gemm", SECONDS, "usecond", "4"),
        row(1, "gemm", READ, "byte", "184"),
        row(1, "gemm", FFMA, "inst", "n/a"),
        row(2, "void fill<float, 4>(int)", SECONDS, "ns", "500"),
        row(2, "void fill<float, 4>(int)", WRITTEN, "byte", "64"),
        row(3, "unmeasured", FFMA, "inst", "5"),
        "==PROF== Disconnected from process 2583",
    ]
)
ASKED = f'"{READ}","{WRITTEN}","{SECONDS}","{FFMA}"'
RAW = "\n".join(
    [
        f'"ID","Process ID","Process Name","Host Name","Kernel Name","launch__grid_size",{ASKED}',
        '"","","","","","","Mbyte","Mbyte","us","inst"',
        '"0","9","python","127.0.0.1","gemm","64","1.5","0.5","10.0","1,000,000"',
        '"1","9","python","127.0.0.1","gemm","64","1.5","0.5","30.0","1,000,000"',
    ]
)


def test_the_long_layout_with_units_separators_and_messages(tmp_path: Path) -> None:
    """Oracle: by hand: gemm 6 us, 2816 + 1500 + 184 bytes, 2 * 1000 + 40000 FLOPs."""
    file = tmp_path / "ncu.csv"
    file.write_text(DETAILS)
    gemm, fill = read_counted(file)

    assert (gemm.name, gemm.source, gemm.calls) == ("gemm", "counted", 2)
    assert gemm.seconds == pytest.approx(6e-6)
    assert (gemm.bytes, gemm.flops) == (pytest.approx(4500), pytest.approx(42_000))
    assert (fill.name, fill.flops) == ("void fill<float, 4>(int)", 0)


def test_the_wide_layout_has_its_units_in_the_second_row(tmp_path: Path) -> None:
    """Oracle: by hand: two launches of 2 MB, 40 us and 4 MFLOP together, over 2 steps."""
    file = tmp_path / "raw.csv"
    file.write_text(RAW)
    (gemm,) = read_counted(file, steps=2)

    assert gemm.calls == 1
    assert gemm.bytes == pytest.approx(2e6)
    assert gemm.seconds == pytest.approx(20e-6)
    assert gemm.flops == pytest.approx(2e6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no csv at all", "no header that begins with ID"),
        (HEADER, "no kernel with DRAM bytes and time"),
        ('"ID","Metric Name"\n"0","a"', "no column 'Kernel Name'"),
        (f'"ID","Kernel Name","{SECONDS}"\n"0","gemm","5"', "no row of units"),
        ("\n".join([HEADER, row(0, "gemm", FFMA, "inst", "5")]), "profile --ncu"),
    ],
)
def test_a_file_that_cannot_serve_says_what_to_ask_for(
    tmp_path: Path, text: str, words: str
) -> None:
    """Oracle: the house rule on errors."""
    file = tmp_path / "other.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=words):
        read_counted(file)


@pytest.mark.parametrize(
    ("metric", "unit", "value"),
    [
        (SECONDS, "us", "1234,56"),  # in German: 100 times too long, read as English
        (SECONDS, "us", "1.234,5"),
        (SECONDS, "us", "1 234"),
        (SECONDS, "us", "-3"),
        (SECONDS, "us", "inf"),
        (READ, "byte", "12,5"),
        (SECONDS, "cycle", "5"),
        (SECONDS, "", "5"),
        (READ, "KiB", "5"),
        (READ, "us", "5"),
    ],
)
def test_a_number_or_unit_that_is_not_known_is_refused(
    tmp_path: Path, metric: str, unit: str, value: str
) -> None:
    """Oracle: by hand: each would be off by a power of ten, or of no meaning."""
    file = tmp_path / "counted.csv"
    good = [row(0, "gemm", SECONDS, "us", "2"), row(0, "gemm", READ, "byte", "64")]
    file.write_text("\n".join([HEADER, *good, row(1, "gemm", metric, unit, value)]))

    with pytest.raises(UserError, match=r"LC_ALL=C|--print-units base"):
        read_counted(file)


def test_a_unit_of_what_is_not_counted_is_nothing_to_us(tmp_path: Path) -> None:
    """Oracle: by hand: the point of the two metrics that count."""
    file = tmp_path / "counted.csv"
    good = [row(0, "gemm", SECONDS, "us", "2"), row(0, "gemm", READ, "byte", "64")]
    file.write_text("\n".join([HEADER, *good, row(0, "gemm", "sm__throughput.avg", "%", "1,5")]))

    (point,) = read_counted(file)

    assert (point.bytes, point.seconds) == (64, pytest.approx(2e-6))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_powershell_redirected_is_read(tmp_path: Path, encoding: str) -> None:
    """Oracle: the same file in plain UTF-8, after a line of the program's own that begins so."""
    files = [tmp_path / "plain.csv", tmp_path / "redirected.csv"]
    files[0].write_text(DETAILS)
    files[1].write_text("IDLE again\n" + DETAILS, encoding=encoding)

    assert read_counted(files[1]) == read_counted(files[0])


def test_an_absent_file_is_told(tmp_path: Path) -> None:
    """Oracle: the house rule on errors."""
    with pytest.raises(UserError, match=r"absent\.csv"):
        read_counted(tmp_path / "absent.csv")


def test_a_multiply_add_counts_twice_and_tensor_operations_once() -> None:
    """Oracle: NVIDIA's own roofline sections weight fma by 2; ops of the tensor path are FLOPs."""
    assert {name for name, factor in FLOPS.items() if factor == 2} == {
        f"smsp__sass_thread_inst_executed_op_{width}fma_pred_on.sum" for width in "hfd"
    }
