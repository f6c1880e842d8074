"""The models that the tests write are real enough for what other tests conclude from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from .conftest import N_PADDING, N_VOCAB, Trio
from .gguf_models import BOS, END, EOS, ModelShape, vocabulary, write_gguf

Rows = NDArray[np.float32]


class Model:
    """The plainest way to ask llama.cpp for logits and tokens, apart from the code under test."""

    def __init__(self, path: Path) -> None:
        lib.llama_backend_init()
        of_model = lib.llama_model_default_params()
        of_model.use_extra_bufts = False  # see eftlocal.llama.library.has_amx
        self.model = lib.llama_model_load_from_file(str(path).encode(), of_model)
        parameters = lib.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 256
        parameters.n_threads = parameters.n_threads_batch = 1
        self.context = lib.llama_init_from_model(self.model, parameters)
        self.vocabulary = lib.llama_model_get_vocab(self.model)
        self.n_vocab = lib.llama_vocab_n_tokens(self.vocabulary)

    def rows(self, tokens: Sequence[int]) -> Rows:
        """Read the tokens from an empty cache: logits (T, V)."""
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)
        batch = lib.llama_batch_init(len(tokens), 0, 1)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        batch.n_tokens = len(tokens)
        assert lib.llama_decode(self.context, batch) == 0
        lib.llama_batch_free(batch)
        logits = lib.llama_get_logits(self.context)
        return np.ctypeslib.as_array(logits, (len(tokens), self.n_vocab)).copy()

    def tokenize(self, text: str) -> list[int]:
        """Tokens of a text, with markers and the beginning of a text."""
        data, found = text.encode(), (lib.llama_token * 500)()
        count = lib.llama_tokenize(self.vocabulary, data, len(data), found, 500, True, True)
        return list(found[:count])

    def piece(self, token: int) -> bytes:
        """The bytes of one token."""
        buffer = bytes(64)
        size = lib.llama_token_to_piece(self.vocabulary, token, buffer, 64, 0, True)
        return buffer[:size]


@contextmanager
def opened(path: Path) -> Iterator[Model]:
    """A model for the length of a block."""
    model = Model(path)
    try:
        yield model
    finally:
        lib.llama_free(model.context)
        lib.llama_model_free(model.model)


@pytest.fixture(scope="module")
def some_tokens() -> list[int]:
    """A beginning and 120 random tokens."""
    generator = np.random.default_rng(0)
    return [BOS, *generator.integers(0, N_VOCAB, 120).tolist()]


@pytest.mark.parametrize("quantization", ["F32", "F16", "Q8_0", "Q4_0"])
def test_logits_have_a_healthy_spread(
    quantization: str, tmp_path: Path, some_tokens: list[int]
) -> None:
    """Every kind of file decodes; likeliest tokens are neither certain nor lost among the rest."""
    shape = ModelShape(n_vocab=N_VOCAB, quantization=quantization)
    with opened(write_gguf(tmp_path / "model.gguf", shape, seed=5)) as model:
        rows = model.rows(some_tokens).astype(np.float64)
    tops = 1 / np.exp(rows - rows.max(axis=1, keepdims=True)).sum(axis=1)
    assert 2 < rows.std() < 3
    assert 0.1 < np.median(tops) < 0.5
    assert np.mean((tops > 0.05) & (tops < 0.6)) > 0.6


def test_every_kind_of_file_holds_the_same_weights(tmp_path: Path, some_tokens: list[int]) -> None:
    """The other kinds are the F32 model up to rounding."""
    rows = {}
    for kind in ("F32", "F16", "Q8_0", "Q4_0"):
        shape = ModelShape(n_vocab=N_VOCAB, quantization=kind)
        with opened(write_gguf(tmp_path / f"{kind}.gguf", shape)) as model:
            rows[kind] = model.rows(some_tokens[:20])
    assert np.abs(rows["F16"] - rows["F32"]).max() < 0.1
    assert np.abs(rows["Q8_0"] - rows["F32"]).max() < 1
    assert np.corrcoef(rows["Q4_0"].ravel(), rows["F32"].ravel())[0, 1] > 0.9


def test_logits_depend_on_the_whole_prefix(trio: Trio, some_tokens: list[int]) -> None:
    """Another first token changes the logits of the last row; a shorter prefix often the winner."""
    with opened(trio.base) as model:
        rows = model.rows(some_tokens)
        other_first = model.rows([some_tokens[1], *some_tokens[1:]])
        alone = np.array([model.rows([BOS, token])[-1] for token in some_tokens[1:]])
    assert np.abs(rows[-1] - other_first[-1]).max() > 0.02
    same_winner = np.mean(rows[1:].argmax(axis=1) == alone.argmax(axis=1))
    assert 0.3 < same_winner < 0.8


def test_models_of_a_family_often_agree(trio: Trio, some_tokens: list[int]) -> None:
    """About half of the time the models want the same token, so drafts are sometimes accepted."""
    winners = []
    for path in trio:
        with opened(path) as model:
            winners.append(model.rows(some_tokens).argmax(axis=1))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert 0.25 < np.mean(winners[first] == winners[second]) < 0.75


def test_text_becomes_tokens_and_comes_back(trio: Trio) -> None:
    """English takes several tokens a word, markers take one, anything else becomes bytes."""
    text = "The quick brown fox, 123! Ærø"
    with opened(trio.tuned) as model:
        tokens = model.tokenize(text + "<|end|>")
        assert len(text.split()) < len(tokens) < len(text)
        assert (tokens[0], tokens[-1]) == (BOS, END)
        assert b"".join(model.piece(token) for token in tokens[1:-1]).decode() == " " + text
        assert [lib.llama_vocab_is_eog(model.vocabulary, token) for token in (EOS, END, 300)] == [
            True,
            True,
            False,
        ]


def test_padding_is_only_longer(padded_trio: Trio) -> None:
    """Padding tokens lie at the end, and their logits are as high as others'."""
    with opened(padded_trio.base) as base, opened(padded_trio.reference) as reference:
        assert base.n_vocab == reference.n_vocab + N_PADDING == N_VOCAB + N_PADDING
        name = lib.llama_vocab_get_text(base.vocabulary, N_VOCAB)
        assert name == f"[PAD{N_VOCAB}]".encode()
        assert base.piece(N_VOCAB) == b""
        assert [base.piece(i) for i in range(N_VOCAB)] == [
            reference.piece(i) for i in range(N_VOCAB)
        ]
        rows = base.rows(base.tokenize("The capital of France"))
    assert rows[:, N_VOCAB:].std() > 2


def test_a_file_is_a_function_of_its_arguments(tmp_path: Path) -> None:
    """The same arguments write the same bytes; another seed writes others."""
    files = [write_gguf(tmp_path / f"{i}.gguf", seed=seed) for i, seed in enumerate((7, 7, 8))]
    first, again, other = (path.read_bytes() for path in files)
    assert first == again
    assert first != other


@pytest.mark.parametrize("n_vocab", [400, 32_000, 151_936])
def test_vocabularies_have_no_token_twice(n_vocab: int) -> None:
    """Token texts are unique, as llama.cpp demands, and the size is the one asked for."""
    texts = {token.text for token in vocabulary(n_vocab)}
    assert len(texts) == len(vocabulary(n_vocab)) == n_vocab
