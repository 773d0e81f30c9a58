"""Make an interpreter that has a few packages and what these need, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

MEASURING = (
    "torch",
    "numpy",
    "pydantic",
    "rich",
    "typer",
    "psutil",
    "tokenizers",
    "safetensors",
)
"""What the machine that measures must have."""
ROOT = Path(__file__).parents[2]


def closure(names: tuple[str, ...]) -> set[str]:
    """Give distributions with all that they require here, extras not."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or ():
            required = Requirement(text)
            if required.marker is None or required.marker.evaluate({"extra": ""}):
                waiting.append(required.name)
    return found


def bare_python(folder: Path, names: tuple[str, ...] = MEASURING) -> Path:
    """Make a virtual environment of links to these packages; give its interpreter."""
    home = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    command = [str(home), "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in closure(names):
        distribution = metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}
        for top in tops - {"__pycache__"}:
            target = Path(str(distribution.locate_file(top)))
            if target.exists() and not (site / top).exists():
                (site / top).symlink_to(target)
    return folder / "bin" / "python"


def bare_environment(cache: Path) -> dict[str, str]:
    """Give the environment: this checkout on the path, one thread bound to no core."""
    kept = {key: value for key, value in os.environ.items() if key in {"PATH", "HOME", "LANG"}}
    threads = {"OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "false"}
    return {**kept, **threads, "PYTHONPATH": str(ROOT), "BERTOPT_BENCH_CACHE": str(cache)}
