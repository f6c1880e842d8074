"""Fixtures that several test files use: trios of tiny GGUF models, atlas, and servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import settings

import eftlocal

from .gguf_models import CHAT_TEMPLATE, ModelShape, write_gguf

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from .browser import Open, Tab
    from .full_server import Running

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


@pytest.fixture(scope="module")
def atlas() -> Iterator[eftlocal.FusedModel]:
    """The model that comes with the package."""
    with eftlocal.load("atlas", threads=1) as model:
        yield model


# What servers need is imported only where there is one.
@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server of atlas, with all routes."""
    from .full_server import ATLAS, serve

    with serve(ATLAS) as running:
        yield running


@pytest.fixture(scope="module")
def exact_server(trio: Trio) -> Iterator[Running]:
    """A server of random models of 32-bit floats.

    Their texts have many characters that are cut in two, and their tokenizer puts a space before
    texts.
    """
    from .full_server import exact, serve

    with serve(exact(trio)) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser; without one the test is skipped."""
    from .browser import chromium

    with chromium() as running:
        yield running


@pytest.fixture
def tabs(browser: Browser) -> Iterator[Open]:
    """What opens the page of a server; fails where something goes wrong on it unexpectedly."""
    from .browser import tabs_of

    with tabs_of(browser) as open_tab:
        yield open_tab


@pytest.fixture
def tab(server: Running, tabs: Open) -> Tab:
    """The page of atlas, with its usual settings."""
    return tabs(server.url)
