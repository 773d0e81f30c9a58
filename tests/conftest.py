"""What all tests share: Hypothesis asserts no time, and no module meets another's compiled code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared machine")


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_code() -> Iterator[None]:
    """Drop what torch.compile keeps of a function: of more than eight variants it takes no more."""
    yield
    if "torch._dynamo" in sys.modules:
        import torch

        torch._dynamo.reset()
