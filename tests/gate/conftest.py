"""Let these tests use the result sets that the results room's tests write."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "results"))
