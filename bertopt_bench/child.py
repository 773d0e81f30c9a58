"""Start one of this package's modules in another interpreter, importing what this one imported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = str(Path(__file__).resolve().parent.parent)
# The root may be another interpreter's site-packages: only this package is looked for in it.
_BOOT = """
import importlib.machinery, json, runpy, sys
package, root, overlay, cwd, module, arguments = json.loads({0!r})
class Root:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != package:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, [root])
        if spec is None:
            raise ModuleNotFoundError(f"there is no {{name}} in {{root}}", name=name)
        return spec
sys.meta_path.insert(0, Root)
sys.path[:0] = overlay
cwd in sys.path or sys.path.append(cwd)
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def module_command(
    module: str,
    *arguments: str,
    python: str = sys.executable,
    root: str | None = None,
    overlay: Sequence[str] = (),
) -> list[str]:
    """Give the command line that runs ``module`` as a program.

    This package comes from ``root`` (None: from where this process has it) and from nowhere else.
    The folders of ``overlay`` come before all that is installed. The working directory comes last
    on the path, so that a user's own modules are found and shadow nothing.
    """
    package, cwd = __name__.partition(".")[0], str(Path.cwd())
    setting = [package, root or ROOT, list(overlay), cwd, module, list(arguments)]
    return [python, "-P", "-c", _BOOT.format(json.dumps(setting))]
