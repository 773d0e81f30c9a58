"""Start one of this package's modules in another interpreter, importing what this one imported."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
_BOOT = """
import json, runpy, sys
root, cwd, module, arguments = json.loads({0!r})
root in sys.path or sys.path.insert(0, root)
cwd in sys.path or sys.path.append(cwd)
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def module_command(module: str, *arguments: str, python: str = sys.executable) -> list[str]:
    """Give the command line that runs ``module`` as a program.

    The package comes from where this process has it; the working directory comes last on the
    path, so that a user's own modules are found and shadow nothing.
    """
    setting = json.dumps([ROOT, str(Path.cwd()), module, list(arguments)])
    return [python, "-P", "-c", _BOOT.format(setting)]
