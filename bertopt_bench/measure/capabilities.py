"""Find out what can run here: `python -m bertopt_bench.measure.capabilities` prints it as JSON.

Run in a process of its own, since it imports torch and asks the CUDA driver.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any

from bertopt_bench.measure.machine import allowed_cores, cpu_flags

OPTIONAL_PACKAGES = (
    "pytorch_optimizer",
    "datasets",
    "pyarrow",
    "transformers",
    "triton",
    "liger_kernel",
    "cut_cross_entropy",
    "flash_attn",
)
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_fp16", "asimd", "bf16")


def probe() -> dict[str, Any]:
    """Describe torch, CUDA, optional packages, compiler and processor; imports torch."""
    import torch

    flags = cpu_flags()
    return {
        "torch": torch.__version__.partition("+")[0],
        "cuda": _cuda(),
        "packages": {name: _installed(name) for name in OPTIONAL_PACKAGES},
        "compiler": has_compiler(),
        "cpu": {
            "threads": allowed_cores(),
            "isa": [name for name in INSTRUCTION_SETS if name in flags],
        },
    }


def has_compiler() -> bool:
    """Say whether torch.compile can build CPU kernels: a C++ compiler and Python's headers.

    Source: torch/_inductor/cpp_builder.py: the compiler is $CXX, else clang++ on macOS, cl on
    Windows and g++ elsewhere; no other name is tried.
    """
    defaults = {"darwin": "clang++", "win32": "cl"}
    compiler = os.environ.get("CXX", defaults.get(sys.platform, "g++"))
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return shutil.which(compiler) is not None and headers.exists()


def _cuda() -> dict[str, Any]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "count": count,
        "names": [torch.cuda.get_device_name(index) for index in range(count)],
        "capability": [list(torch.cuda.get_device_capability(index)) for index in range(count)],
    }


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def main() -> None:
    """Print the probe as one line of JSON."""
    sys.stdout.write(json.dumps(probe()) + "\n")


if __name__ == "__main__":
    main()
