"""Split documents into train and held-out ones, train WordPiece on the former, tokenise both."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

ALL, TUNING = "all", "tuning"  # parts of the held-out text; the third is the report's
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL_TOKENS))
TOKENIZER_FILE = "tokenizer.json"
_ALPHABET = 1000  # characters; BERT's own vocabulary has about as many
_WITHIN = "##"  # begins the pieces that do not begin a word
_CHUNK = 256  # documents tokenised between two calls of progress


@dataclass(frozen=True, slots=True)
class Split:
    """Documents of both sides, in the order of the corpus."""

    train: list[str]
    held_out: list[str]


@dataclass(frozen=True, slots=True)
class TokenText:
    """Tokens of all documents end to end; document i is ``ids[starts[i]:starts[i + 1]]``."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]


def hash_documents(documents: Sequence[str]) -> str:
    """Hash a text: its documents and their order."""
    digest = hashlib.sha256()
    for document in documents:
        raw = document.encode()
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.hexdigest()


def split_documents(documents: Sequence[str], held_out_fraction: float) -> Split:
    """Hold out about ``held_out_fraction`` of the characters, by whole documents.

    In the order of their own hashes, documents are held out as long as the share is not exceeded
    (at least one is), so that documents of one text fall on one side. Texts that are only alike
    are not recognised and can fall on both.

    Raises:
        UserError: the fraction is not within (0, 1), or there are not two different documents.
    """
    if not 0.0 < held_out_fraction < 1.0:
        raise UserError(f"held_out_fraction is {held_out_fraction}; allowed is between 0 and 1.")
    sizes: dict[bytes, int] = {}
    digests = [hashlib.sha256(document.encode()).digest() for document in documents]
    for digest, document in zip(digests, documents, strict=True):
        sizes[digest] = sizes.get(digest, 0) + len(document)
    if len(sizes) < 2:
        raise UserError(
            f"the corpus has {len(sizes)} different documents; the split into train and held-out "
            "text is by document and needs two. Cut the text into several files."
        )
    room = held_out_fraction * sum(sizes.values())
    held_out: set[bytes] = set()
    for digest, size in sorted(sizes.items()):
        if size <= room:
            held_out.add(digest)
            room -= size
    held_out = held_out or {min(sizes, key=lambda digest: sizes[digest])}
    sides = [digest in held_out for digest in digests]
    return Split(
        [document for document, held in zip(documents, sides, strict=True) if not held],
        [document for document, held in zip(documents, sides, strict=True) if held],
    )


def tuning_half(documents: Sequence[str]) -> list[bool]:
    """Say for each held-out document whether it is for tuning; the others are for the report.

    As in ``split_documents``, in the order of hashes documents join as long as half of the
    characters is not exceeded, and documents of one text fall together. These hashes are others:
    held-out documents are those whose own ones are small.

    Raises:
        UserError: there are not two different documents.
    """
    sizes: dict[str, int] = {}
    for document in documents:
        sizes[document] = sizes.get(document, 0) + len(document)
    if len(sizes) < 2:
        raise UserError(
            f"the held-out text has {len(sizes)} different documents; it is split into two parts "
            "by document. Raise held_out_fraction, or take a larger corpus."
        )
    order = sorted(sizes, key=lambda one: hashlib.sha256(b"held_out_part/" + one.encode()).digest())
    room, half = sum(sizes.values()) / 2, set()
    for document in order:
        if sizes[document] <= room:
            half.add(document)
            room -= sizes[document]
    return [document in half for document in documents]


def select(text: TokenText, chosen: Sequence[bool]) -> TokenText:
    """Give the tokens of the chosen documents alone."""
    parts = [
        text.ids[start:end]
        for start, end, wanted in zip(text.starts[:-1], text.starts[1:], chosen, strict=True)
        if wanted
    ]
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return TokenText(np.concatenate(parts), starts)


def train_tokenizer(
    documents: Sequence[str], vocabulary_size: int, *, lower_case: bool
) -> Tokenizer:
    """Train BERT's kind of tokenizer; pieces join the vocabulary by frequency.

    The trainer of ``tokenizers`` numbers letters in the order of a hash table and lets the lower
    number win a tie, so that two runs differ. A first training, of letters alone, finds them; the
    second is given them in order, and then the same text gives the same vocabulary.

    Raises:
        UserError: the letters alone are more than the vocabulary may have.
    """
    alphabet = _alphabet(documents, tokenizer_of_pieces({}, lower_case=lower_case))
    found = _learn(documents, 0, [], alphabet, lower_case=lower_case)
    letters = sorted(found.keys() - set(SPECIAL_TOKENS))
    if len(letters) + len(SPECIAL_TOKENS) > vocabulary_size:
        raise UserError(
            f"vocabulary_size is {vocabulary_size}, but this text has {len(letters)} letters, "
            "counted apart at the start of a word and within it. Take a larger vocabulary."
        )
    within = [letter for letter in letters if letter.startswith(_WITHIN)]
    pieces = _learn(documents, vocabulary_size, within, alphabet, lower_case=lower_case)
    return tokenizer_of_pieces(pieces, lower_case=lower_case)


def tokenizer_of_pieces(pieces: dict[str, int], *, lower_case: bool) -> Tokenizer:
    """Give a tokenizer of these pieces; with none, it can normalise text and be trained."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token=SPECIAL_TOKENS[UNK]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    if pieces:
        tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _alphabet(documents: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Give the most frequent characters, at most 1000; of equally frequent ones the lower."""
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update(tokenizer.normalizer.normalize_str(document))
    visible = [letter for letter in counts if not letter.isspace()]
    return sorted(visible, key=lambda letter: (-counts[letter], letter))[:_ALPHABET]


def _learn(
    documents: Sequence[str], size: int, within: list[str], alphabet: list[str], *, lower_case: bool
) -> dict[str, int]:
    """Train a vocabulary that begins with the special tokens and then ``within``."""
    from tokenizers import trainers

    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL_TOKENS, *within],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer = tokenizer_of_pieces({}, lower_case=lower_case)
    tokenizer.train_from_iterator(documents, trainer, length=len(documents))
    pieces: dict[str, int] = tokenizer.get_vocab()
    return pieces


def tokenise(
    tokenizer: Tokenizer, documents: Sequence[str], advance: Callable[[int], None]
) -> TokenText:
    """Tokenise documents, without special tokens; ``advance(n)`` after every n of them."""
    parts: list[NDArray[np.int32]] = []
    for first in range(0, len(documents), _CHUNK):
        chunk = documents[first : first + _CHUNK]
        encoded = tokenizer.encode_batch_fast(chunk, add_special_tokens=False)
        parts += [np.asarray(encoding.ids, dtype=np.int32) for encoding in encoded]
        advance(len(chunk))
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return TokenText(np.concatenate(parts), starts)


def save_tokens(folder: Path, side: str, text: TokenText) -> None:
    """Write the tokens of one side."""
    np.save(folder / f"{side}_ids.npy", text.ids)
    np.save(folder / f"{side}_starts.npy", text.starts)


def load_tokens(folder: Path, side: str) -> TokenText:
    """Map the tokens of one side into memory."""
    return TokenText(
        np.load(folder / f"{side}_ids.npy", mmap_mode="r"), np.load(folder / f"{side}_starts.npy")
    )


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    """Give the pieces in the order of their ids."""
    ids: dict[str, int] = tokenizer.get_vocab()
    return sorted(ids, key=lambda piece: ids[piece])


def read_tokenizer(file: Path) -> Tokenizer:
    """Read a tokenizer from its JSON file."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(file))
