"""Vocabularies of headers: the same answers as llama.cpp's vocabularies give."""

from __future__ import annotations

from pathlib import Path

import pytest

from eftlocal.errors import ModelFileError, VocabularyMismatch
from eftlocal.gguf import (
    VOCABULARY_KEYS,
    Header,
    check_headers,
    check_tokens,
    read_header,
    read_tokens,
)
from eftlocal.llama import Weights, check_vocabularies

from . import gguf_bytes
from .conftest import N_PADDING, N_VOCAB, Trio
from .gguf_models import ModelShape, vocabulary, write_gguf
from .test_gguf_header import ATLAS, read

TOKENIZER = {b"tokenizer.ggml.model": gguf_bytes.string(b"gpt2")}


def header_of(path: Path) -> Header:
    """A header with its vocabulary."""
    return read_header(path, keep=VOCABULARY_KEYS)


def made(texts: list[bytes], model: bytes = b"gpt2") -> Header:
    """A header with these tokens."""
    pairs = {
        b"tokenizer.ggml.model": gguf_bytes.string(model),
        b"tokenizer.ggml.tokens": gguf_bytes.strings(texts),
    }
    return read(gguf_bytes.header(pairs), *VOCABULARY_KEYS)


@pytest.mark.parametrize("name", ["base", "tuned", "large.gguf"])
def test_texts_are_those_of_llama_cpp(padded_trio: Trio, name: str) -> None:
    """Of every token, and padding ends where llama.cpp's attributes say so."""
    path = ATLAS / name if name.endswith("gguf") else getattr(padded_trio, name)
    weights = Weights(path)
    tokens = read_tokens(header_of(path))
    assert tokens.texts == weights.vocabulary.raw_tokens()
    weights.close()


def test_padding_is_allowed(padded_trio: Trio) -> None:
    """A padded base agrees with its pair."""
    headers = [header_of(path) for path in padded_trio]
    assert headers[0].n_tokens == N_VOCAB + N_PADDING
    assert check_headers(headers) == N_VOCAB


def test_the_first_difference_is_that_of_llama_cpp(trio: Trio, tmp_path: Path) -> None:
    """Both name the token, its two texts and the files, in the same words."""
    tokens = list(vocabulary(N_VOCAB))
    tokens[700], tokens[900] = tokens[900], tokens[700]
    other = write_gguf(tmp_path / "m.gguf", ModelShape(n_vocab=N_VOCAB), tokens=tokens)
    with pytest.raises(VocabularyMismatch, match=r"token 700 is '.*' in ") as found:
        check_headers([header_of(trio.base), header_of(other)])
    weights = [Weights(trio.base), Weights(other)]
    with pytest.raises(VocabularyMismatch) as expected:
        check_vocabularies([item.vocabulary for item in weights])
    assert str(found.value) == str(expected.value)
    for item in weights:
        item.close()


def test_differences_at_the_end_and_in_kind() -> None:
    """A missing token, another kind of tokenizer, no vocabulary at all."""
    first = made([b"a", b"b", b"c"])
    with pytest.raises(VocabularyMismatch, match=r"token 2 is 'c' in .* but missing in "):
        check_headers([first, made([b"a", b"b"])])
    with pytest.raises(VocabularyMismatch, match=r"kinds of tokenizers \(gpt2 and llama\)"):
        check_headers([first, made([b"a", b"b", b"c"], b"llama")])
    with pytest.raises(ModelFileError, match="it has no vocabulary"):
        check_headers([read(gguf_bytes.header(TOKENIZER))])
    assert check_tokens([read_tokens(first)] * 3) == 3
