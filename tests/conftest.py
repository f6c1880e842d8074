"""Fixtures that several test files use: trios of tiny GGUF models."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

from .gguf_models import CHAT_TEMPLATE, ModelShape, write_gguf

# No deadlines: a busy machine is not a failure.
settings.register_profile("eftlocal", deadline=None)
settings.load_profile("eftlocal")

N_VOCAB = 1200
N_PADDING = 80
SMALL = ModelShape(n_vocab=N_VOCAB)
LARGE = ModelShape(n_vocab=N_VOCAB, width=128, layers=4, ffn=256)
PADDED_LARGE = ModelShape(n_vocab=N_VOCAB, n_padding=N_PADDING, width=128, layers=4, ffn=256)


class Trio(NamedTuple):
    """The files of one model entry."""

    base: Path
    tuned: Path
    reference: Path


def write_trio(folder: Path, base: ModelShape = LARGE, small: ModelShape = SMALL) -> Trio:
    """Write a base and a smaller pair of one family; only the tuned model has a chat template."""
    return Trio(
        write_gguf(folder / "base.gguf", base, seed=1),
        write_gguf(folder / "tuned.gguf", small, seed=2, chat_template=CHAT_TEMPLATE),
        write_gguf(folder / "reference.gguf", small, seed=3),
    )


@pytest.fixture(autouse=True)
def no_user_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the model entries of whoever runs the tests out of them."""
    monkeypatch.delenv("EFTLOCAL_MODELS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))


@pytest.fixture(scope="session")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    """A base, and a smaller tuned and reference, over one vocabulary of 1,200 tokens."""
    return write_trio(tmp_path_factory.mktemp("trio"))


@pytest.fixture(scope="session")
def padded_trio(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    """The same, but the base's vocabulary is padded with 80 unused tokens."""
    return write_trio(tmp_path_factory.mktemp("padded_trio"), base=PADDED_LARGE)
