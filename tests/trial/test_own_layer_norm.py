"""A layer norm of the user's own: trained with through the whole trial, and refused when wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from bertopt_bench import catalogue
from bertopt_bench.trial import assemble, passes
from bertopt_bench.workload.model import OwnLayerNorm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bertopt_bench.trial.live import Trial

    MakeRequest = Callable[..., dict[str, Any]]

OWN = '''
def plain(input, normalized_shape, weight=None, bias=None, eps=1e-5, *, offset: float = 0.0):
    """Norm in plain operations (Ba et al., arXiv 1607.06450, equation 4)."""
    centred = input - input.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred * (variance + eps + offset).rsqrt() * weight + bias
'''


@pytest.fixture(autouse=True)
def _own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_norms.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)


def trained(request: dict[str, Any], name: str | None, **options: Any) -> tuple[Trial, list[float]]:
    if name is not None:
        request["cell"]["kernel"]["layer_norm"] = {"name": name, **options}
    trial = assemble.assemble(request)
    passes.burn_in(trial, 2)
    trial.restore()
    for index in range(trial.steps):
        trial.step(index)
    return trial, trial.drain()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_plain_operations_train_alike(make_request: MakeRequest, precision: str) -> None:
    """Oracle: the trial with torch's layer norm: each step's loss and the held-out one.

    Within 1e-5 in fp32, and in bf16 within what 8 bits of mantissa leave of a loss of 4.
    """
    tolerance = 1e-5 if precision == "fp32" else 0.02
    usual, expected = trained(make_request(precision=precision), None)
    own, losses = trained(make_request(precision=precision), "own_norms:plain", offset=0.0)

    norms = [module for module in own.model.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert {type(norm) for norm in norms} == {OwnLayerNorm}
    assert losses == pytest.approx(expected, abs=tolerance)
    assert own.evaluate().loss == pytest.approx(usual.evaluate().loss, abs=tolerance)
    assert own.initial_weights_sha256 == usual.initial_weights_sha256


def test_its_options_reach_it(make_request: MakeRequest) -> None:
    """Oracle: a huge addition to the variance flattens every norm, so that losses differ."""
    _, expected = trained(make_request(), None)
    _, losses = trained(make_request(), "own_norms:plain", offset=100.0)

    assert losses != pytest.approx(expected, abs=1e-3)


def test_a_cell_that_does_not_say_has_torchs_own(make_request: MakeRequest) -> None:
    """Oracle: the cell as every one was before the axis came, and with the default written out."""
    silent, losses = trained(make_request(), None)
    said, others = trained(make_request(), "default")

    assert losses == others
    for trial in (silent, said):
        assert not any(isinstance(module, OwnLayerNorm) for module in trial.model.modules())


def test_an_installed_name_stands_for_the_function_too(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the same function named by its module."""
    _, expected = trained(make_request(), "own_norms:plain")
    monkeypatch.setattr(catalogue.outside, "entry_points", lambda _: {"quick": "own_norms:plain"})

    trial, losses = trained(make_request(), "quick")

    assert losses == expected
    assert any(isinstance(module, OwnLayerNorm) for module in trial.model.modules())


def test_it_can_be_compiled(make_request: MakeRequest) -> None:
    """One graph holds the function's operations; oracle: the eager trial."""
    eager, _ = trained(make_request(), "own_norms:plain")
    graph = torch.compile(eager.model, backend="aot_eager", fullgraph=True, dynamic=False)
    batch = eager.fetch(0, 0)
    arguments = (batch.input_ids, batch.attention_mask, batch.masked_index)

    torch.testing.assert_close(graph(*arguments), eager.model(*arguments), rtol=1e-5, atol=1e-5)
