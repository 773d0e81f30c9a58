"""Load from and save to Hugging Face ``bert`` checkpoints: config.json, model.safetensors, vocab.

The names of our parameters are theirs. What a checkpoint has beyond the model is left out only
where it is known what it is: the tied decoder's copies, position numbers, the head for the next
sentence, a pooler that the model was not asked for.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bertopt_bench.errors import UserError
from bertopt_bench.workload.formulas import ModelSize
from bertopt_bench.workload.model import BertConfig, BertForMaskedLM
from bertopt_bench.workload.pretrained import (
    CONFIG,
    SIZE_KEYS,
    VOCABULARY,
    WEIGHTS,
    existing,
)
from bertopt_bench.workload.tokens import TOKENIZER_FILE, read_tokenizer, vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_POSITIONS = "bert.embeddings.position_embeddings.weight"
_WORDS = "bert.embeddings.word_embeddings.weight"
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
_LEFT_OUT = ("bert.pooler.", "cls.seq_relationship.", "bert.embeddings.position_ids")


def save(model: BertForMaskedLM, tokenizer_file: Path | None, folder: Path) -> None:
    """Write a checkpoint that ``transformers.BertForMaskedLM`` loads; fp32, the tied weight once.

    Sinusoidal positions are written as a position table, and the configuration says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if model.config.position_embedding == "sinusoidal":
        state[_POSITIONS] = model.bert.embeddings.get_buffer("sinusoids").detach().cpu()
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    text = json.dumps(_config_json(model.config), indent=2) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    if tokenizer_file is not None:
        shutil.copyfile(tokenizer_file, folder / TOKENIZER_FILE)
        pieces = vocabulary(read_tokenizer(tokenizer_file))
        (folder / VOCABULARY).write_text("\n".join(pieces) + "\n", encoding="utf-8")


def read_config(folder: Path, *, pooler: bool = False) -> BertConfig:
    """Read what a checkpoint's network looks like, to build a model that fits it.

    Raises:
        UserError: no such file, or a network that ours is not: other activation or positions.
    """
    raw = json.loads(existing(folder, CONFIG).read_text(encoding="utf-8"))
    for key, expected in (("model_type", "bert"), ("hidden_act", "gelu")):
        if raw.get(key, expected) != expected:
            raise UserError(f"{folder / CONFIG}: {key} is {raw[key]!r}; only {expected!r} loads.")
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(f"{folder / CONFIG}: relative position embeddings do not load.")
    return BertConfig(
        vocabulary_size=raw["vocab_size"],
        size=ModelSize(**{ours: raw[theirs] for ours, theirs in SIZE_KEYS.items()}),
        position_embedding=raw.get("position_embedding", "learned"),
        dropout=raw.get("hidden_dropout_prob", 0.0),
        attention_dropout=raw.get("attention_probs_dropout_prob", 0.0),
        layer_norm_eps=raw.get("layer_norm_eps", 1e-12),
        pooler=pooler,
    )


def load(model: BertForMaskedLM, folder: Path) -> None:
    """Load a checkpoint's weights into a model of the same sizes.

    Raises:
        UserError: no such file, a weight is missing, unknown or of another shape, the decoder is
            not tied.
    """
    found = _renamed(load_file(existing(folder, WEIGHTS)))
    _drop_decoder(found, folder)
    if model.config.position_embedding == "sinusoidal":
        found.pop(_POSITIONS, None)
    wanted = model.state_dict()
    for name in [name for name in found if name not in wanted and name.startswith(_LEFT_OUT)]:
        del found[name]
    _check_names(found, wanted, folder)
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(found[name])


def load_encoder(model: nn.Module, folder: Path) -> None:
    """Load a checkpoint's encoder into a model that has one as ``bert``; heads stay as they are.

    A pooler that the checkpoint lacks stays as it is, too.

    Raises:
        UserError: no such file, or a weight of the encoder is missing or of another shape.
    """
    found = _renamed(load_file(existing(folder, WEIGHTS)))
    state = model.state_dict()
    wanted = {
        name: value
        for name, value in state.items()
        if name.startswith("bert.") and (name in found or not name.startswith("bert.pooler."))
    }
    kept = {name: value for name, value in found.items() if name in wanted}
    _check_names(kept, wanted, folder)
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(kept[name])


def _renamed(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give current names to weights of old checkpoints and of bare encoders."""
    renamed = {}
    for name, value in found.items():
        full = name if name.startswith(("bert.", "cls.")) else f"bert.{name}"
        for old, new in _OLD_NAMES.items():
            full = full.replace(old, new)
        renamed[full] = value
    return renamed


def _drop_decoder(found: dict[str, Tensor], folder: Path) -> None:
    """Leave out the copies of the tied weights, having seen that they are copies."""
    for name, tied in (("weight", _WORDS), ("bias", "cls.predictions.bias")):
        copy = found.pop(f"cls.predictions.decoder.{name}", None)
        if copy is None:
            continue
        if tied in found and not torch.equal(copy, found[tied]):
            raise UserError(
                f"{folder}: the decoder's {name} is not tied to {tied}; such models do not load."
            )
        found.setdefault(tied, copy)


def _check_names(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], folder: Path) -> None:
    missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or unknown:
        raise UserError(
            f"{folder / WEIGHTS} does not fit the model: missing {missing or 'none'}, "
            f"unknown {unknown or 'none'}."
        )
    for name, value in wanted.items():
        if value.shape != found[name].shape:
            raise UserError(
                f"{folder / WEIGHTS}: {name} has shape {list(found[name].shape)}, the model's is "
                f"{list(value.shape)}. Build the model from read_config()."
            )


def _config_json(config: BertConfig) -> dict[str, Any]:
    return {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        "vocab_size": config.vocabulary_size,
        **{theirs: getattr(config.size, ours) for ours, theirs in SIZE_KEYS.items()},
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "layer_norm_eps": config.layer_norm_eps,
        "position_embedding": config.position_embedding,
        "initializer_range": 0.02,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
    }
