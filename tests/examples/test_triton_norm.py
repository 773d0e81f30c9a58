"""The example of a Triton kernel of one's own, in Triton's interpreter where it is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/kernels"
CHECK = """
import torch
from triton_norm import layer_norm

torch.manual_seed(0)
for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
    for shape in ((5, 16), (2, 3, 20), (70, 7)):  # widths that are no power of two, rows beyond 64
        results = []
        draw = torch.Generator().manual_seed(1)
        given = torch.randn(*shape, generator=draw) + 0.5
        weight, bias = torch.rand(shape[-1], generator=draw), torch.rand(shape[-1], generator=draw)
        along = torch.randn(*shape, generator=draw)
        for own in (True, False):
            inputs = [given.clone().to(dtype), weight.clone(), bias.clone()]
            if not own:
                inputs = [tensor.double() for tensor in inputs]
            for tensor in inputs:
                tensor.requires_grad_()
            function = layer_norm if own else torch.nn.functional.layer_norm
            y = function(inputs[0], (shape[-1],), *inputs[1:], 1e-12)
            y.backward(along.to(y.dtype))
            results.append([y, *(tensor.grad for tensor in inputs)])
            if own:
                assert y.dtype == dtype and inputs[0].grad.dtype == dtype
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance)
print("equal")
"""


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed: pip install 'bertopt-bench[triton]'",
)
def test_the_triton_layer_norm_is_torchs() -> None:
    """Output and gradients in fp32 and bf16; oracle: torch's layer norm in float64."""
    path = os.pathsep.join([str(EXAMPLE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"
