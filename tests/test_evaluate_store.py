"""Results by content: what a kill leaves, what two processes write, what other content means."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eftlocal.errors import EftlocalError
from eftlocal.evaluate.store import Shelf, Store, default_folder, digest, file_digest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
RECORDS = st.dictionaries(st.text(min_size=1), st.dictionaries(st.text(), JSON), max_size=5)


@given(RECORDS)
def test_records_come_back_as_they_were(records: dict[str, dict[str, object]]) -> None:
    """Floats to the last bit, and any text."""
    with tempfile.TemporaryDirectory() as folder:
        shelf = Shelf(Path(folder) / "shelf")
        for item, record in records.items():
            shelf.put(item, record)
        shelf.close()
        again = Shelf(Path(folder) / "shelf")
        for item, record in records.items():
            assert again.get(item) == shelf.get(item) == record


@given(st.data())
def test_a_file_that_was_cut_anywhere_goes_on(data: st.DataObject) -> None:
    """What is whole stays, what was cut is missing, and new records are readable."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shelf"
        shelf = Shelf(path)
        ends = []
        for i in range(4):
            shelf.put(f"item {i}", {"text": "a\nb\u2028" * i, "value": i / 3})
            ends.append(path.stat().st_size)
        shelf.close()
        cut = data.draw(st.integers(0, ends[-1]))
        os.truncate(path, cut)
        whole = [i for i, end in enumerate(ends) if end <= cut + 1]  # the line end itself
        shelf = Shelf(path)
        assert [i for i in range(4) if shelf.get(f"item {i}")] == whole
        for i in range(4):
            shelf.put(f"item {i}", {"value": i * 2})
        shelf.close()
        again = Shelf(path)
        for i in range(4):
            record = again.get(f"item {i}")
            assert record is not None and record["value"] == (i / 3 if i in whole else i * 2)


def test_the_last_record_counts(tmp_path: Path) -> None:
    """Two processes that did the same at once agree afterwards on whose it is."""
    one, other = Shelf(tmp_path / "shelf"), Shelf(tmp_path / "shelf")
    one.put("item", {"by": 1})
    other.put("item", {"by": 2})
    other.put("item", {"by": 3})
    one.put("more", {"by": 1})
    assert Shelf(tmp_path / "shelf").get("item") == {"by": 2}
    assert Shelf(tmp_path / "shelf").get("more") == {"by": 1}


def test_content_decides(tmp_path: Path) -> None:
    """The order of keys does not matter, any value does."""
    store = Store(tmp_path / "new" / "folder")
    with store.shelf({"a": 1, "b": [1, 2]}) as shelf:
        shelf.put("item", {"x": 1})
    with store.shelf({"b": [1, 2], "a": 1}) as shelf:
        assert shelf.get("item") == {"x": 1}
    for other in ({"a": 1, "b": [2, 1]}, {"a": 1.5, "b": [1, 2]}, {"a": 1}):
        with store.shelf(other) as shelf:
            assert shelf.get("item") is None
    assert digest({"a": 1}) != digest({"a": "1"})


def test_a_fresh_store_passes_over_what_was_there(tmp_path: Path) -> None:
    """Earlier results stay for others until there are new ones; those of the same run count."""
    with Store(tmp_path).shelf({}) as shelf:
        shelf.put("item", {"x": 1})
        shelf.put("other", {"x": 1})
    store = Store(tmp_path, fresh=True)
    with store.shelf({}) as shelf:
        assert shelf.get("item") is None
        shelf.put("item", {"x": 2})
    with store.shelf({}) as shelf:
        assert shelf.get("item") == {"x": 2}
        assert shelf.get("other") is None
    with Store(tmp_path).shelf({}) as shelf:
        assert (shelf.get("item"), shelf.get("other")) == ({"x": 2}, {"x": 1})


def test_a_changed_file_has_another_name(tmp_path: Path) -> None:
    """By what it holds, not by where it lies."""
    path = tmp_path / "a.gguf"
    path.write_bytes(b"one")
    first = file_digest(path)
    path.rename(tmp_path / "b.gguf")
    assert file_digest(tmp_path / "b.gguf") == first
    path.write_bytes(b"other")
    assert file_digest(path) != first
    with pytest.raises(EftlocalError, match=r"cannot read .*missing"):
        file_digest(tmp_path / "missing")


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """A file in the way of the folder, and a full disk."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with (
        pytest.raises(EftlocalError, match=r"cannot use .*file"),
        Store(tmp_path / "file").shelf({}),
    ):
        pass
    if Path("/dev/full").exists():
        (tmp_path / f"{digest({})}.jsonl").symlink_to("/dev/full")
        with (
            pytest.raises(EftlocalError, match=r"cannot write .*: No space left"),
            Store(tmp_path).shelf({}) as shelf,
        ):
            shelf.put("item", {})


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As XDG says; relative values do not count."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "eftlocal" / "eval"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "eftlocal" / "eval"


def test_lines_are_json(tmp_path: Path) -> None:
    """Anyone can read the files."""
    with Store(tmp_path).shelf({}) as shelf:
        shelf.put("item", {"text": "ü"})
    (file,) = tmp_path.iterdir()
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line]
    assert [json.loads(line) for line in lines] == [["item", {"text": "ü"}]]
