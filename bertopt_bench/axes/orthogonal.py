"""Muon whose orthogonalisation runs in fp32. Imports torch: only muon's entry imports this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Muon

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class Fp32Muon(Muon):
    """torch.optim.Muon, but for the bfloat16 that it orthogonalises in on every device.

    For processors without 16-bit arithmetic, which emulate it (docs/decisions.md has the times).

    Source: torch.optim.Muon, whose groups and state these are; Jordan et al., 2024.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every matrix that has a gradient; give what the closure gave."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._step_one(matrix, matrix.grad, group)
        return loss

    def _step_one(self, matrix: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer: Tensor = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer
        given = (group["ns_coefficients"], group["ns_steps"], group["eps"])
        update = orthogonalise(update.float(), *given)  # of fp64 weights too
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        matrix.sub_(update.mul_(group["lr"] * _scale(group["adjust_lr_fn"], *matrix.shape)))


def orthogonalise(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Push the singular values of [A, B] to near 1 by a quintic Newton-Schulz iteration.

    Returns: another tensor of its shape and dtype.

    Source: Jordan et al., 2024, kellerjordan.github.io/posts/muon.
    """
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    iterate = matrix.T if tall else matrix
    iterate = iterate / iterate.norm().clamp(min=eps)
    for _ in range(steps):
        gram = iterate @ iterate.T
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        iterate = torch.addmm(iterate, polynomial, iterate, beta=a)
    return iterate.T if tall else iterate


def _scale(adjust: str | None, rows: int, columns: int) -> float:
    """Give what a rate is multiplied with for a matrix of these sides, as torch.optim.Muon does."""
    if adjust == "match_rms_adamw":
        return float(0.2 * max(rows, columns) ** 0.5)
    return float(max(1.0, rows / columns) ** 0.5)
