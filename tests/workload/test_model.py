"""The network against transformers' BertForMaskedLM, and its own promises."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional

from bertopt_bench.errors import UserError
from bertopt_bench.workload.checkpoints import load, read_config, save
from bertopt_bench.workload.formulas import ModelSize
from bertopt_bench.workload.model import (
    BertConfig,
    BertForMaskedLM,
    initialise,
    parameter_groups,
    sinusoids,
)

if TYPE_CHECKING:
    from pathlib import Path

SIZE = ModelSize(hidden=32, layers=2, heads=4, intermediate=64, positions=24)
VOCABULARY, BATCH, LENGTH = 97, 3, 16
LENGTHS = torch.tensor([16, 9, 12])
MASK = torch.arange(LENGTH) < LENGTHS[:, None]
INDEX = torch.tensor([1, 5, 17, 24, 33, 40, 41])


def make(**options: Any) -> BertForMaskedLM:
    """Build a model whose vectors are drawn too: zeros and ones would hide a swapped bias."""
    model = BertForMaskedLM(BertConfig(VOCABULARY, SIZE, **options))
    generator = torch.Generator().manual_seed(1)
    initialise(model, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw tokens, segments and labels."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, VOCABULARY, (BATCH, LENGTH), generator=generator)
    ids = torch.where(MASK, ids, 0)
    segments = torch.randint(0, 2, (BATCH, LENGTH), generator=generator)
    labels = torch.randint(5, VOCABULARY, (len(INDEX),), generator=generator)
    return ids, segments, labels


def ours_and_theirs(tmp_path: Path, **options: Any) -> tuple[BertForMaskedLM, Any]:
    import transformers

    ours = make(**options)
    save(ours, None, tmp_path)
    return ours.eval(), transformers.BertForMaskedLM.from_pretrained(tmp_path).eval()


@pytest.mark.parametrize("position_embedding", ["learned", "sinusoidal"])
@pytest.mark.parametrize("attention_mask", [MASK[:, None, None, :], None])
def test_outputs_equal_transformers(
    tmp_path: Path, position_embedding: str, attention_mask: torch.Tensor | None
) -> None:
    """Logits of masked slots within 1e-5; oracle: transformers.BertForMaskedLM, same weights."""
    ours, theirs = ours_and_theirs(tmp_path, position_embedding=position_embedding)
    ids, segments, _ = inputs()
    real = MASK if attention_mask is not None else torch.ones_like(MASK)

    expected = theirs(input_ids=ids, attention_mask=real.long(), token_type_ids=segments).logits
    actual = ours(ids.int(), attention_mask, INDEX, segments.int())

    torch.testing.assert_close(actual, expected.view(-1, VOCABULARY)[INDEX], rtol=1e-5, atol=1e-5)


def test_loss_and_gradients_equal_transformers(tmp_path: Path) -> None:
    """Loss and the gradient of every parameter within 1e-5; oracle: transformers, same weights."""
    ours, theirs = ours_and_theirs(tmp_path)
    ids, _, labels = inputs()
    dense = torch.full((BATCH * LENGTH,), -100)
    dense[INDEX] = labels

    expected = theirs(
        input_ids=ids, attention_mask=MASK.long(), labels=dense.view(BATCH, LENGTH)
    ).loss
    expected.backward()
    loss = functional.cross_entropy(ours(ids.int(), MASK[:, None, None, :], INDEX), labels)
    loss.backward()

    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    gradients = {name: value.grad for name, value in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients.pop(name), rtol=1e-5, atol=1e-5)
    assert gradients == {}


def test_padding_changes_nothing() -> None:
    """A sequence gives the same logits alone and padded."""
    model = make().eval()
    ids, _, _ = inputs()
    alone = model(ids[1:2, :9], None, torch.tensor([1, 8]))

    padded = model(ids, MASK[:, None, None, :], torch.tensor([17, 24]))

    torch.testing.assert_close(padded, alone, rtol=1e-5, atol=1e-5)


def test_padded_slots_get_no_gradient() -> None:
    """Nothing flows into [PAD]'s own input embedding: its gradient is the decoder's alone."""
    model = make()
    ids, _, labels = inputs()
    functional.cross_entropy(model(ids, MASK[:, None, None, :], INDEX), labels).backward()
    with_pads = model.bert.embeddings.word_embeddings.weight.grad.clone()
    model.zero_grad()

    other = torch.where(MASK, ids, 3)
    functional.cross_entropy(model(other, MASK[:, None, None, :], INDEX), labels).backward()

    actual = model.bert.embeddings.word_embeddings.weight.grad
    torch.testing.assert_close(actual[0], with_pads[0], rtol=1e-5, atol=1e-7)


def test_first_loss_is_near_the_logarithm_of_the_vocabulary() -> None:
    """Random weights guess evenly: loss ln V."""
    model = BertForMaskedLM(BertConfig(VOCABULARY, SIZE))
    initialise(model, torch.Generator().manual_seed(0))
    ids, _, labels = inputs()

    loss = functional.cross_entropy(model(ids, None, INDEX), labels)

    assert loss.item() == pytest.approx(math.log(VOCABULARY), abs=0.1)


def test_attention_can_be_replaced() -> None:
    """A callable with the signature of scaled_dot_product_attention runs in its place."""
    calls = []

    def attention(q: Any, k: Any, v: Any, **options: Any) -> torch.Tensor:
        calls.append((tuple(q.shape), options))
        return functional.scaled_dot_product_attention(q, k, v, **options)

    config = BertConfig(VOCABULARY, SIZE, attention_dropout=0.25)
    model = BertForMaskedLM(config, attention=attention)
    ids, _, _ = inputs()
    model(ids, None, INDEX)
    model.eval()(ids, None, INDEX)

    assert [options["dropout_p"] for _, options in calls] == [0.25, 0.25, 0.0, 0.0]
    assert {shape for shape, _ in calls} == {(BATCH, 4, LENGTH, 8)}


def own_layer_norm(
    hidden: torch.Tensor, shape: Any, weight: Any, bias: Any, eps: float = 1e-5
) -> torch.Tensor:
    """Norm by the paper's formula: mean and variance over the last dimension, in plain operations.

    Source: Ba et al., arXiv 1607.06450, equation 4.
    """
    assert tuple(shape) == hidden.shape[-1:]
    centred = hidden - hidden.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def test_layer_norm_can_be_replaced_everywhere() -> None:
    """Every norm of the network calls it, with the model's epsilon; names and roles stay.

    Oracle: torch's layer norm, same weights: loss and every gradient within 1e-5.
    """
    calls = []

    def counted(*arguments: Any) -> torch.Tensor:
        calls.append(arguments[-1])
        return own_layer_norm(*arguments)

    model, ids, labels = make(), *inputs()[::2]
    own = BertForMaskedLM(model.config, layer_norm=counted)
    own.load_state_dict(model.state_dict(), strict=True)
    losses = [functional.cross_entropy(one(ids, None, INDEX), labels) for one in (model, own)]
    for loss in losses:
        loss.backward()

    assert calls == [1e-12] * (2 * SIZE.layers + 2)
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(own.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)
    groups = [[(g["role"], g["names"]) for g in parameter_groups(one)] for one in (model, own)]
    assert groups[0] == groups[1]


def test_the_usual_layer_norm_is_torchs_own_module() -> None:
    """Nothing stands between the network and torch where no function is given."""
    norms = [module for module in make().modules() if isinstance(module, torch.nn.LayerNorm)]

    assert {type(norm) for norm in norms} == {torch.nn.LayerNorm}
    assert len(norms) == 2 * SIZE.layers + 2


def test_a_layer_norm_that_changes_the_shape_is_refused() -> None:
    """Means alone would broadcast into the residual sum; oracle: the two shapes, by hand."""
    model = BertForMaskedLM(
        BertConfig(VOCABULARY, SIZE), layer_norm=lambda hidden, *_: hidden.mean(-1, keepdim=True)
    )

    with pytest.raises(
        ValueError, match=r"gave shape \[3, 16, 1\] for an input of .*\[3, 16, 32\]"
    ):
        model(inputs()[0], None, INDEX)


def test_dropout_is_off_in_evaluation() -> None:
    model = make(dropout=0.5)
    ids, _, _ = inputs()

    assert not torch.equal(model(ids, None, INDEX), model(ids, None, INDEX))
    model.eval()
    assert torch.equal(model(ids, None, INDEX), model(ids, None, INDEX))


def test_every_parameter_is_in_one_group_with_its_role() -> None:
    """Roles by the parameter's place; Q, K and V are apart, the tied weight comes once."""
    model = make(pooler=True)

    groups = {group["role"]: group for group in parameter_groups(model)}

    assert set(groups) == {"matrix", "embedding", "head", "vector"}
    grouped = [parameter for group in groups.values() for parameter in group["params"]]
    assert len({id(parameter) for parameter in grouped}) == len(grouped)
    assert len(grouped) == len(list(model.parameters()))
    assert all(parameter.ndim == 1 for parameter in groups["vector"]["params"])
    assert len(groups["matrix"]["params"]) == 6 * SIZE.layers
    assert groups["head"]["names"] == [
        "bert.pooler.dense.weight",
        "cls.predictions.transform.dense.weight",
    ]
    named = dict(model.named_parameters())
    for group in groups.values():
        assert all(
            named[name] is parameter
            for name, parameter in zip(group["names"], group["params"], strict=True)
        )


def test_initial_weights_follow_the_generator_alone() -> None:
    """Same generator, same weights; std 0.02; norms at 1, biases at 0."""
    models = [BertForMaskedLM(BertConfig(VOCABULARY, SIZE)) for _ in range(2)]
    for model in models:
        torch.rand(3)  # the global generator plays no part
        initialise(model, torch.Generator().manual_seed(7))

    states = [model.state_dict() for model in models]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    words = states[0]["bert.embeddings.word_embeddings.weight"]
    assert float(words.std()) == pytest.approx(0.02, rel=0.05)
    assert torch.equal(states[0]["cls.predictions.transform.LayerNorm.weight"], torch.ones(32))
    assert torch.equal(states[0]["cls.predictions.bias"], torch.zeros(VOCABULARY))


def test_sinusoids_by_hand() -> None:
    """Section 3.5 of Vaswani et al.: PE(pos, 2i) = sin(pos / 10000^(2i/h)), odd ones cosines."""
    table = sinusoids(3, 4)

    expected = [0.0, 1.0, 0.0, 1.0], [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)]
    torch.testing.assert_close(table[[0, 2]], torch.tensor(expected))


def test_too_long_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match="25 slots a sequence, but 24 positions"):
        make()(torch.ones(1, 25, dtype=torch.int32), None, torch.tensor([1]))


def test_unknown_position_embedding_is_refused() -> None:
    with pytest.raises(UserError, match="Did you mean 'sinusoidal'"):
        BertConfig(VOCABULARY, SIZE, position_embedding="sinusoidel")


def test_checkpoint_round_trip_is_exact(tmp_path: Path) -> None:
    """What is saved comes back bit for bit, configuration included."""
    model = make(position_embedding="sinusoidal")
    save(model, None, tmp_path)
    config = read_config(tmp_path)
    again = BertForMaskedLM(config)
    load(again, tmp_path)

    assert config == model.config
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_checkpoints_of_transformers_load(tmp_path: Path) -> None:
    """Weights that transformers wrote give transformers' outputs."""
    import transformers

    torch.manual_seed(0)
    theirs = transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=24,
        )
    ).eval()
    theirs.save_pretrained(tmp_path)
    ours = BertForMaskedLM(read_config(tmp_path)).eval()
    load(ours, tmp_path)
    ids, _, _ = inputs()

    expected = theirs(input_ids=ids).logits.view(-1, VOCABULARY)[INDEX]
    torch.testing.assert_close(ours(ids, None, INDEX), expected, rtol=1e-5, atol=1e-5)


def rewrite(folder: Path, change: Any) -> None:
    """Edit a checkpoint's weights."""
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def test_old_names_and_tied_copies_load(tmp_path: Path) -> None:
    """BERT's first checkpoints call a norm's weights gamma and beta and repeat the decoder."""
    model = make()
    save(model, None, tmp_path)

    def age(state: dict[str, torch.Tensor]) -> None:
        for name in list(state):
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            state[old.replace("LayerNorm.bias", "LayerNorm.beta")] = state.pop(name)
        words = state["bert.embeddings.word_embeddings.weight"]
        state["cls.predictions.decoder.weight"] = words.clone()
        state["bert.pooler.dense.bias"] = torch.zeros(32)
        state["cls.seq_relationship.bias"] = torch.zeros(2)

    rewrite(tmp_path, age)
    again = BertForMaskedLM(model.config)
    load(again, tmp_path)

    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = make()
    with pytest.raises(UserError, match="no checkpoint"):
        load(model, tmp_path)
    save(model, None, tmp_path)

    rewrite(tmp_path, lambda state: state.update({"cls.predictions.decoder.weight": torch.ones(1)}))
    with pytest.raises(UserError, match="not tied"):
        load(model, tmp_path)
    rewrite(tmp_path, lambda state: state.pop("cls.predictions.decoder.weight"))
    rewrite(tmp_path, lambda state: state.update({"cls.predictions.bias": torch.zeros(5)}))
    with pytest.raises(UserError, match=r"bias has shape \[5\], the model's is \[97\]"):
        load(model, tmp_path)
    rewrite(tmp_path, lambda state: state.pop("cls.predictions.bias"))
    with pytest.raises(UserError, match=r"missing \['cls\.predictions\.bias'\]"):
        load(model, tmp_path)


@pytest.mark.slow
def test_compiled_model_equals_eager() -> None:
    """One graph, the same loss and gradients; oracle: the eager model."""
    model = make()
    ids, _, labels = inputs()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
    gradients = []
    for forward in (model, compiled):
        model.zero_grad()
        functional.cross_entropy(forward(ids, MASK[:, None, None, :], INDEX), labels).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])

    for eager, graph in zip(*gradients, strict=True):
        torch.testing.assert_close(graph, eager, rtol=1e-5, atol=1e-6)
