"""Token ids of one model: text to ids, ids to bytes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import BackendError, ModelFileError, UsageError, VocabularyMismatch
from .library import lib


class Vocabulary:
    """Token ids of one model: text to ids, ids to bytes, special ids.

    Attributes:
        n_vocab: width of a row of logits.
        n_tokens: ids below it have a meaning; from it on there is only padding.
        eog: ids that end a generation.
    """

    def __init__(self, model: Any, path: Path) -> None:
        self._vocab = lib.llama_model_get_vocab(model)
        self.path = path
        self.type = int(lib.llama_vocab_type(self._vocab))
        self.n_vocab = int(lib.llama_vocab_n_tokens(self._vocab))
        if self.n_vocab == 0:
            raise ModelFileError(f"{path}: the model has no vocabulary")
        self.n_tokens = self.n_vocab
        while self.n_tokens > 1 and self._is_padding(self.n_tokens - 1):
            self.n_tokens -= 1
        is_eog = lib.llama_vocab_is_eog
        self.eog = frozenset(i for i in range(self.n_tokens) if is_eog(self._vocab, i))
        self.bos = int(lib.llama_vocab_bos(self._vocab))
        self.eos = int(lib.llama_vocab_eos(self._vocab))
        self.add_bos = bool(lib.llama_vocab_get_add_bos(self._vocab))

    def _is_padding(self, token: int) -> bool:
        text = self.raw(token)
        unused = lib.llama_vocab_get_attr(self._vocab, token) & lib.LLAMA_TOKEN_ATTR_UNUSED
        return bool(unused) or (text.startswith(b"[PAD") and text.endswith(b"]"))

    def raw(self, token: int) -> bytes:
        r"""The token as it stands in the file, such as b'\\xe2\\x96\\x81the' or b'<|end|>'."""
        return lib.llama_vocab_get_text(self._vocab, token) or b""

    def raw_tokens(self) -> list[bytes]:
        """`raw` of every id below n_tokens."""
        get, vocab = lib.llama_vocab_get_text, self._vocab
        return [get(vocab, token) for token in range(self.n_tokens)]

    def control_tokens(self) -> frozenset[int]:
        """Ids of all markers; looks at every token."""
        is_control = lib.llama_vocab_is_control
        return frozenset(i for i in range(self.n_tokens) if is_control(self._vocab, i))

    def is_control(self, token: int) -> bool:
        """Whether the token is a marker, not text."""
        return bool(lib.llama_vocab_is_control(self._vocab, token))

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of a text.

        Args:
            text: any text; lone surrogates are replaced.
            add_special: put the beginning-of-sequence token first where the model wants it.
            parse_special: read markers such as <|end|> as control tokens, not as letters.
        """
        data = text.encode("utf-8", "replace")
        size = len(data) + 16
        for _ in range(2):
            buffer = (lib.llama_token * size)()
            count = lib.llama_tokenize(
                self._vocab, data, len(data), buffer, size, add_special, parse_special
            )
            if count >= 0:
                return list(buffer[:count])
            size = -count
        raise BackendError(f"{self.path}: the text cannot be tokenized")

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes that a token adds to the text; markers are empty unless `special`."""
        if not 0 <= token < self.n_tokens:
            raise UsageError(
                f"token id {token} is not in the vocabulary (0 to {self.n_tokens - 1})"
            )
        size = 64
        for _ in range(2):
            buffer = ctypes.create_string_buffer(size)
            count = lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            size = -count
        raise BackendError(f"{self.path}: token {token} has no text")


def check_vocabularies(vocabularies: Sequence[Vocabulary]) -> int:
    """The common number of ids, where every id means the same in all vocabularies.

    Raises:
        VocabularyMismatch: naming the first token that differs, and the files.
    """
    first = vocabularies[0]
    tokens = first.raw_tokens()
    for other in {id(v): v for v in vocabularies[1:] if v is not first}.values():
        if other.type != first.type:
            raise VocabularyMismatch(
                f"{first.path} and {other.path} have different kinds of tokenizers; "
                "base, tuned and reference must come from one family"
            )
        others = other.raw_tokens()
        if others == tokens:
            continue
        pairs = enumerate(zip(tokens, others, strict=False))
        place = next((i for i, (a, b) in pairs if a != b), min(len(tokens), len(others)))
        mine, theirs = _token_at(tokens, place), _token_at(others, place)
        raise VocabularyMismatch(
            f"token {place} is {mine} in {first.path} but {theirs} in {other.path}; "
            "base, tuned and reference must share one vocabulary"
        )
    return first.n_tokens


def _token_at(tokens: list[bytes], place: int) -> str:
    return repr(tokens[place].decode("utf-8", "replace")) if place < len(tokens) else "missing"
