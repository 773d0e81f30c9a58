"""Explain predictions of a classifier: what each token of a few texts of the test part did to them.

Off the timed path, after the one look at the test part, and only where the matrix asks for it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from bertopt_bench.errors import UserError
from bertopt_bench.trial.classifying import ClassifyingTrial, LabelledBatches
from bertopt_bench.workload.attribution import attribute
from bertopt_bench.workload.labelled import NO_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tokenizers import Tokenizer
    from torch import Tensor

SPECIALS = ("[CLS]", "[SEP]")  # stay in the baseline, which is a text of [PAD] between them


def explain(trial: ClassifyingTrial, text: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Attribute predictions to tokens; the fields are those of ``results.record_parts.Explained``.

    Mistakes come first, up to half of ``count`` texts, then what was told right, in the order of
    the test part: what is chosen follows from the predictions alone.
    """
    from tokenizers import Tokenizer  # a worker needs torch and numpy alone, where nobody asks

    tokenizer = Tokenizer.from_file(text["tokenizer_file"])
    trial.model.eval()
    with trial.regularizers.eval_weights(), trial.precision.context(trial.device.type):
        chosen = _choose(_texts(trial.test_batches), trial.model, count)
        found = [_explained(trial.model, tokenizer, *one) for one in chosen]
    trial.model.train()
    return found


def _texts(batches: LabelledBatches) -> Iterator[tuple[Tensor, int]]:
    """Give each text's tokens, without padding, and its class."""
    for index in range(batches.count):
        for micro in range(batches.micro_batches):
            batch = batches.at(index, micro)
            for row, label in enumerate(batch.labels.tolist()):
                ids = batch.input_ids[row]
                if batch.attention_mask is not None:
                    ids = ids[batch.attention_mask[row, 0, 0]]
                if label != NO_LABEL:
                    yield ids.long(), label


@torch.no_grad()
def _choose(
    texts: Iterator[tuple[Tensor, int]], model: torch.nn.Module, count: int
) -> list[tuple[Tensor, int]]:
    mistakes: list[tuple[Tensor, int]] = []
    right: list[tuple[Tensor, int]] = []
    for ids, label in texts:
        told = int(model(ids[None], None).argmax())
        (right if told == label else mistakes).append((ids, label))
        if len(mistakes) >= count // 2 and len(mistakes) + len(right) >= count:
            break
    kept = mistakes[: count // 2] if len(right) >= count - count // 2 else mistakes
    return [*kept, *right][:count]


def _explained(model: Any, tokenizer: Tokenizer, ids: Tensor, label: int) -> dict[str, Any]:
    words = model.bert.embeddings.word_embeddings
    tokens = [tokenizer.id_to_token(one) for one in ids.tolist()]
    padding = tokenizer.token_to_id("[PAD]")
    blank = torch.tensor(
        [one if token in SPECIALS else padding for one, token in zip(ids, tokens, strict=True)],
        device=ids.device,
    )

    def network(embeddings: Tensor) -> Tensor:
        with _embedded(words, embeddings):
            logits: Tensor = model(ids.expand(len(embeddings), -1), None)
            return logits

    with torch.no_grad():
        embeddings, baseline = words(ids)[None], words(blank)[None]
        chances = torch.softmax(network(embeddings).double(), dim=-1)[0]
    told = int(chances.argmax())
    target = torch.tensor([told], device=ids.device)
    found = attribute(network, embeddings, target, baseline=baseline)
    return {
        "method": found.method,
        "true": label,
        "predicted": told,
        "probability": float(chances[told]),
        "change": float(found.change[0]),
        "tokens": tokens,
        "scores": found.scores[0].tolist(),
    }


@contextmanager
def _embedded(words: torch.nn.Module, embeddings: Tensor) -> Iterator[None]:
    """Let the network read these embeddings of words, whatever its tokens are."""
    handle = words.register_forward_hook(lambda *_: embeddings)
    try:
        yield
    finally:
        handle.remove()


def explained_fields(trial: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """Give the record's field where a classifier was tested and the matrix asks for it."""
    count = request.get("measure", {}).get("explained_texts", 0)
    whole = request["cell"]["workload"]["steps"]
    if not count or not isinstance(trial, ClassifyingTrial) or trial.steps != whole:
        return {}
    try:
        return {"explained": explain(trial, request["text"], count)}
    except (RuntimeError, MemoryError, UserError):  # the trial has ended well: its figures stay
        return {}
