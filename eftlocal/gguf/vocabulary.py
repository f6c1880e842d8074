"""Vocabularies of GGUF headers: whether a token id means the same in all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import ModelFileError, VocabularyMismatch
from .header import TOKEN_TYPES, TOKENS, Header

_UNUSED = 5
VOCABULARY_KEYS = (TOKENS, TOKEN_TYPES)
"""What `read_header` has to keep for `read_tokens`."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The vocabulary of one file.

    Attributes:
        name: what messages call the file.
        type: kind of tokenizer, such as "gpt2".
        texts: of every id, without the padding at the end.
    """

    name: str
    type: str
    texts: list[bytes]


def read_tokens(header: Header) -> Tokens:
    """The vocabulary of a header that was read with `keep=VOCABULARY_KEYS`.

    Raises:
        ModelFileError: where it has none.
    """
    found = header.metadata.get(TOKENS)
    if found is None or not isinstance(found.value, list) or not found.value:
        raise ModelFileError(f"{header.name}: it has no vocabulary")
    texts = found.value
    kinds = header.metadata.get(TOKEN_TYPES)
    types = kinds.value if kinds is not None and isinstance(kinds.value, tuple) else ()
    n_tokens = len(texts)
    while n_tokens > 1 and _is_padding(texts[n_tokens - 1], types[n_tokens - 1 : n_tokens]):
        n_tokens -= 1
    return Tokens(header.name, header.text("tokenizer.ggml.model"), texts[:n_tokens])


def _is_padding(text: bytes, kind: tuple[int, ...]) -> bool:
    """As eftlocal.llama.vocabulary finds it: unused, or called [PAD...]."""
    return kind == (_UNUSED,) or (text.startswith(b"[PAD") and text.endswith(b"]"))


def check_tokens(vocabularies: Sequence[Tokens]) -> int:
    """The common number of ids, where every id means the same in all vocabularies.

    Raises:
        VocabularyMismatch: naming the first token that differs, and the files.
    """
    first = vocabularies[0]
    for other in vocabularies[1:]:
        if other.type != first.type:
            raise VocabularyMismatch(
                f"{first.name} and {other.name} have different kinds of tokenizers "
                f"({first.type} and {other.type}); base, tuned and reference must come from one "
                "family"
            )
        place = first_difference(first.texts, other.texts)
        if place is not None:
            mine, theirs = (_token_at(tokens.texts, place) for tokens in (first, other))
            raise VocabularyMismatch(
                f"token {place} is {mine} in {first.name} but {theirs} in {other.name}; "
                "base, tuned and reference must share one vocabulary"
            )
    return len(first.texts)


def check_headers(headers: Iterable[Header]) -> int:
    """`check_tokens` of whole models' headers; adapters among them have no vocabulary.

    Raises:
        ModelFileError: where a model has no vocabulary.
        VocabularyMismatch: naming the first token that differs, and the files.
    """
    return check_tokens([read_tokens(header) for header in headers if not header.is_adapter])


def first_difference(mine: Sequence[bytes], theirs: Sequence[bytes]) -> int | None:
    """The first place where two lists differ, None where they are equal."""
    if mine == theirs:
        return None
    pairs = enumerate(zip(mine, theirs, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(mine), len(theirs)))


def _token_at(texts: Sequence[bytes], place: int) -> str:
    return repr(texts[place].decode("utf-8", "replace")) if place < len(texts) else "missing"
