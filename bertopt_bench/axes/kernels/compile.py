"""Compile: whether torch.compile makes kernels of the model's forward and backward pass."""

from __future__ import annotations

from bertopt_bench.axes.kernels import COMPILED, LAUNCHED, Kernel


def off() -> Kernel:
    """Run the model eagerly.

    Own: 'module:function', called as function(model) with the module that is trained; gives what is
        called in its place, with its arguments.
    """
    return Kernel()


def default() -> Kernel:
    """Compile with the default mode.

    Source: Ansel et al., ASPLOS 2024; torch.compile.
    """
    return _compiled("default")


def reduce_overhead() -> Kernel:
    """Compile, and replay the graphs as CUDA graphs: CUDA only, a CPU has none.

    Source: torch.compile, mode reduce-overhead.
    """
    return _compiled("reduce-overhead", *LAUNCHED)


def max_autotune() -> Kernel:
    """Compile and time several kernels for each matrix product; CUDA graphs on a GPU.

    Source: torch.compile, mode max-autotune.
    """
    return _compiled("max-autotune", *LAUNCHED)


def _compiled(mode: str, *on_cuda: str) -> Kernel:
    """Force one graph of the whole model: a part of it that stayed eager would run unseen."""
    options = {"mode": mode, "fullgraph": True}
    return Kernel(options=options, expects=COMPILED, expects_on_cuda=on_cuda, compiles=True)
