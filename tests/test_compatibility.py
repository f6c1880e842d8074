"""Models that do not go together are found out from their headers, here and on the hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import eftlocal
from eftlocal.compatibility import check_entry, check_vocabularies
from eftlocal.errors import HubError, ModelFileError, VocabularyMismatch
from eftlocal.registry import Entry, Expert, Source

from .adapters import write_adapter
from .conftest import SMALL, Trio
from .gguf_models import ModelShape, write_gguf
from .hub_client import hub_at
from .hub_server import HubServer


def entry_of(trio: Trio) -> Entry:
    """The entry of three files."""
    return Entry.from_files(trio.base, [trio.tuned], [trio.reference])


def load(trio: Trio) -> eftlocal.FusedModel:
    """The models of three files."""
    return eftlocal.load(base=trio.base, tuned=trio.tuned, reference=trio.reference, threads=1)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A model with another vocabulary."""
    return write_gguf(tmp_path / "other.gguf", replace(SMALL, n_vocab=900), seed=4)


def test_models_of_one_family_go_together(trio: Trio, padded_trio: Trio) -> None:
    """Padding at the end of a vocabulary is no difference, as it is none for `load`."""
    for files in (trio, padded_trio):
        headers = check_entry(entry_of(files))
        assert list(headers) == ["base", "tuned", "reference"]
        with load(files) as model:
            assert model.n_vocab == headers["tuned"].n_tokens


def test_another_vocabulary_is_refused_like_a_load_refuses_it(trio: Trio, other: Path) -> None:
    """The first token that differs is named, and it is the one that `load` finds."""
    mixed = Trio(trio.base, trio.tuned, other)
    with pytest.raises(VocabularyMismatch) as early:
        check_entry(entry_of(mixed))
    with pytest.raises(VocabularyMismatch) as late:
        load(mixed)
    token = str(early.value).split(" is ")[0]
    assert token in str(late.value) and token.startswith("token ")
    sources = [source for _, source in entry_of(mixed).sources()]
    with pytest.raises(VocabularyMismatch, match=token):
        check_vocabularies(sources)
    check_vocabularies(sources[:2])


def test_files_have_to_fit_their_roles(trio: Trio, tmp_path: Path) -> None:
    """An adapter can only be tuned, and only an adapter can have a scale."""
    adapter = write_adapter(tmp_path / "adapter.gguf", trio.reference)
    check_entry(Entry.from_files(trio.base, [adapter], [trio.reference]))
    for roles in ((adapter, trio.tuned, trio.reference), (trio.base, trio.tuned, adapter)):
        with pytest.raises(ModelFileError, match="only tuned can be one"):
            check_entry(entry_of(Trio(*roles)))
    pair = Expert("tuned", Source(path=trio.tuned, scale=0.5), Source(path=trio.reference))
    with pytest.raises(ModelFileError, match="not an adapter"):
        check_entry(Entry("x", Source(path=trio.base), (pair,)))
    with pytest.raises(ModelFileError, match="no such file"):
        check_entry(entry_of(trio._replace(base=tmp_path / "missing.gguf")))


def test_files_on_the_hub_are_compared_before_a_download(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only headers are fetched; a file that is not there is one line."""
    large = ModelShape(n_vocab=900, width=512, layers=8, ffn=2048)
    far = write_gguf(tmp_path / "far.gguf", large, seed=4).read_bytes()
    with HubServer() as server, hub_at(server, tmp_path / "home", monkeypatch):
        server.add("user/Far-GGUF", {"Far.Q8_0.gguf": far})
        server.add("user/Base-GGUF", {"Base.Q8_0.gguf": trio.base.read_bytes()})
        files = [trio.tuned], [trio.reference]
        check_entry(Entry.from_files("hf:user/Base-GGUF:q8_0", *files))
        with pytest.raises(VocabularyMismatch, match="token "):
            check_entry(Entry.from_files("hf:user/Far-GGUF:Q8_0", *files))
        assert server.sent("user/Far-GGUF/Far.Q8_0.gguf") < len(far) / 2
        with pytest.raises(HubError, match="Far"):
            check_entry(Entry.from_files("hf:user/Far-GGUF:Q4_K_M", *files))
