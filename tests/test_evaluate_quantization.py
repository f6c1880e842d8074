"""What quantizing each role does: distances, the study on atlas and on other models."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eftlocal.errors import EftlocalError, UsageError
from eftlocal.evaluate.answering import ask
from eftlocal.evaluate.quantization import Quantization, Subject, read_texts
from eftlocal.evaluate.quantization.comparing import Comparing
from eftlocal.evaluate.quantization.passages import Passages
from eftlocal.evaluate.quantization.scoring import empty_rows
from eftlocal.evaluate.quantization.subject import PARTS, Folder, embedded
from eftlocal.evaluate.report import Section
from eftlocal.evaluate.store import Store
from eftlocal.evaluate.study import Setting
from eftlocal.evaluate.systems import FAMILY, Models
from eftlocal.evaluate.work import perform, records
from eftlocal.llama.quantizing import quantize
from eftlocal.registry import ROLES
from eftlocal.tables import Estimate

from .conftest import Trio
from .test_llama_quantizing import full_disk

EXACT: dict[str, Any] = {"threads": 1, "flash_attention": "off", "cache_type": "f32"}
TYPES = ("Q8_0", "Q5_0", "Q4_0")
EVERY = 60


class Killed(Exception):
    """Stands for a kill between two records."""


def subject(trio: Trio, **changes: Any) -> Subject:
    """The random trio, with texts and prompts."""
    files = trio._asdict()
    own = Subject(
        Models(files=files, runtime=EXACT),
        prompts=(ask("one two"), ask("three")),
        texts=("some words that follow each other", "other words"),
        types=TYPES,
        n_tokens=12,
    )
    return replace(own, **changes)


def performed(study: Quantization, setting: Setting) -> Section:
    """The section after all work."""
    perform(study.work(setting), setting.store)
    return study.section(setting)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """A few questions, few draws."""
    return Setting(Store(tmp_path_factory.mktemp("store")), every=EVERY, resamples=200)


@pytest.fixture(scope="module")
def section(setting: Setting) -> Section:
    """The study of the embedded family."""
    return performed(Quantization(n_draws=1), setting)


def column(section: Section, title: str, key: str) -> dict[tuple[Any, Any], Any]:
    """The first two cells of a row -> a cell of a table."""
    table = next(table for table in section.tables if table.title.startswith(title))
    keys = [c.key for c in table.columns]
    return {(row[0], row[1]): row[keys.index(key)] for row in table.rows}


def test_fewer_bits_move_the_fused_distribution_further(section: Section) -> None:
    """In the large, whatever the role; F16 is nearly nothing."""
    kl = {key: cell.value for key, cell in column(section, "What", "kl_nats").items()}
    for part in PARTS:
        fine_to_coarse = [kl[name, part] for name in ("F16", "Q8_0", "Q5_0", "Q4_0")]
        assert fine_to_coarse == sorted(fine_to_coarse)
        assert fine_to_coarse[0] < 1e-4 < fine_to_coarse[-1] / 10
    named = column(section, "What", "tensors")
    assert all(cell == name for (name, _), cell in named.items())


def test_rows_are_those_of_decoding(setting: Setting) -> None:
    """The tokens that were scored are the likeliest of the fused rows, as they were when said."""
    own = embedded(setting, 1)[0]
    passages = Passages(own)
    compared = Comparing(passages, {"Q8_0": ROLES}, setting.store)
    perform([passages], setting.store)
    said = records(passages, setting.store)
    rows = {role: compared._score(own.paths()[role], role, said) for role in ROLES}
    fused = rows["base"] + rows["tuned"] - rows["reference"]
    tokens = list(itertools.chain.from_iterable(record["tokens"] for record in said))
    assert fused.argmax(axis=1).tolist() == tokens


def test_the_section_says_what_the_tables_say(section: Section) -> None:
    """Claims, sizes and bits; every number has an interval where it needs one."""
    saved = column(section, "What", "saved_mb")
    assert saved["Q8_0", "all three"] == pytest.approx(
        saved["Q8_0", "base"] + saved["Q8_0", "tuned and reference"]
    )
    sizes = {name: (FAMILY / f"{name}.gguf").stat().st_size for name in ("large", "small")}
    n_weights = 8 / 8.52 * sizes["large"]
    assert saved["Q8_0", "base"] == pytest.approx((4 - 8.52 / 8) * n_weights / 1e6, rel=0.02)
    assert len(section.claims) == 7
    assert all(claim.found for claim in section.claims)
    assert isinstance(column(section, "Replies", "manners_difference")["Q4_0", "tuned"], Estimate)
    assert section.figures[0].log_y
    best = next(table for table in section.tables if table.title.startswith("Where"))
    kl = [row[3].value for row in best.rows if isinstance(row[3], Estimate)]
    size = [row[0] for row in best.rows if isinstance(row[0], float)]
    assert kl == sorted(kl, reverse=True) and size == sorted(size)
    assert section.to_json() and section.to_text()


def test_own_models_are_studied_without_questions(trio: Trio, tmp_path: Path) -> None:
    """Prompts and texts of other models; nothing stays but the results."""
    store = Store(tmp_path / "store")
    found = performed(Quantization(subject(trio)), Setting(store, resamples=50))
    assert found.settings["texts"] == "4"
    assert len(found.claims) == 5 and len(found.tables) == 4
    left = [file for file in store.folder.rglob("*") if file.is_file()]
    assert all(file.suffix == ".jsonl" for file in left) and len(left) == 2


def test_only_roles_with_more_bits_are_quantized(trio: Trio, tmp_path: Path) -> None:
    """A file is never given more bits than it has; what that leaves out has no row."""
    small = quantize(trio.base, tmp_path / "base.gguf", "Q5_0", pure=True)
    assert small.bits < 6
    files = {**trio._asdict(), "base": tmp_path / "base.gguf"}
    own = subject(trio, models=Models(files=files, runtime=EXACT))
    assert own.quantized() == {"Q8_0": ROLES[1:], "Q5_0": ROLES[1:], "Q4_0": ROLES}
    found = performed(Quantization(own), Setting(Store(tmp_path / "store"), resamples=50))
    rows = column(found, "What", "kl_nats")
    assert ("Q8_0", "base") not in rows and ("Q4_0", "all three") in rows
    with pytest.raises(UsageError, match="as few bits"):
        replace(own, types=("F32",)).quantized()


def test_a_killed_run_goes_on_to_the_same_bytes(trio: Trio, tmp_path: Path) -> None:
    """Stopped after every third record, it ends with the same section as one that ran through."""
    study = Quantization(subject(trio))
    whole = performed(study, Setting(Store(tmp_path / "whole"), resamples=50))
    setting = Setting(Store(tmp_path / "stopped"), resamples=50)

    def stop_after_three() -> Iterator[None]:
        for _ in range(2):
            yield
        raise Killed

    n_stops = 0
    while True:
        steps = stop_after_three()
        counted: set[int] = set()

        def progress(
            done: int, total: int, title: str, steps: Any = steps, counted: Any = counted
        ) -> None:
            if done not in counted and counted:
                next(steps)
            counted.add(done)

        try:
            perform(study.work(setting), setting.store, progress)
            break
        except Killed:
            n_stops += 1
    assert n_stops >= 3
    assert study.section(setting).to_json() == whole.to_json()
    perform(study.work(setting), setting.store)
    assert study.section(setting).to_text() == whole.to_text()


def test_a_full_disk_is_one_line(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of logits have no room: an error before anything is computed."""

    def no_space(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # A file with holes can be made on a full disk; only asking for its blocks tells.
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", no_space)
        with pytest.raises(EftlocalError, match="No space left"):
            empty_rows(tmp_path, 100, 1000)
    with full_disk(1000), pytest.raises(EftlocalError, match="no room of") as caught:
        empty_rows(tmp_path, 100, 1000)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    store = Store(tmp_path / "store")
    own = Passages(subject(trio))
    perform([own], store)
    with full_disk(30_000), pytest.raises(EftlocalError):
        perform([Comparing(own, subject(trio).quantized(), store)], store)
    files = [file for file in store.folder.rglob("*") if file.is_file()]
    assert all(file.suffix == ".jsonl" for file in files)


def test_what_cannot_be_studied_is_refused(trio: Trio, tmp_path: Path) -> None:
    """One line for unknown types, no texts, several experts, files that are missing."""
    with pytest.raises(UsageError, match="unknown quantization"):
        subject(trio, types=("Q9",))
    with pytest.raises(UsageError, match="give some"):
        subject(trio, prompts=(), texts=())
    with pytest.raises(UsageError, match="n_tokens = 0"):
        subject(trio, n_tokens=0)
    files = {**trio._asdict(), "tuned": [trio.tuned, trio.reference]}
    with pytest.raises(UsageError, match="one expert"):
        subject(trio, models=Models(files=files)).paths()
    missing = {**trio._asdict(), "tuned": tmp_path / "none.gguf"}
    with pytest.raises(EftlocalError, match=r"none\.gguf: no such file"):
        subject(trio, models=Models(files=missing)).quantized()


def test_rows_are_bounded(trio: Trio) -> None:
    """As many texts as n_rows allows with n_tokens each."""
    assert len(Passages(subject(trio, n_rows=24)).items) == 2
    assert len(Passages(subject(trio, n_rows=1000)).items) == 4


def test_texts_of_files(tmp_path: Path) -> None:
    """Lines, or JSON; the line of a mistake is named."""
    (tmp_path / "a.txt").write_text('one\n\n"two"\n', encoding="utf-8")
    assert read_texts(tmp_path / "a.txt") == ("one", '"two"')
    (tmp_path / "a.jsonl").write_text('"one"\n{"prompt": "two"}\n\n{"text": "three"}\n')
    assert read_texts(tmp_path / "a.jsonl") == ("one", "two", "three")
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf"one"\r\n"t\xe2\x80\xa8wo"\r\n')
    assert read_texts(tmp_path / "a.jsonl") == ("one", "t\u2028wo")
    for line in ("{", "1", '{"text": 1}', "{}", '"\\ud800"', "[" * 100_000):
        (tmp_path / "b.jsonl").write_text(f'"one"\n{line}\n')
        with pytest.raises(UsageError, match=r"b\.jsonl, line 2"):
            read_texts(tmp_path / "b.jsonl")
    with pytest.raises(UsageError, match="cannot read"):
        read_texts(tmp_path / "none.txt")


def test_parts_of_files_that_a_kill_left_are_removed(trio: Trio, tmp_path: Path) -> None:
    """Old ones only: another process may be writing the others."""
    for name in (".{}.gguf.1.part", "a.{}.lent.gguf"):
        for age in ("old", "new"):
            (tmp_path / name.format(age)).touch()
        os.utime(tmp_path / name.format("old"), (0, 0))
    made = Folder(tmp_path).quantize(trio.base, "Q8_0", pure=True)
    left = {".new.gguf.1.part", "a.new.lent.gguf", made.name}
    assert {file.name for file in tmp_path.iterdir()} == left


def test_a_file_that_is_not_kept_is_nobody_else_s(trio: Trio, tmp_path: Path) -> None:
    """Two at a time have two files; the end of one leaves the other."""
    folder = Folder(tmp_path)
    with folder.lent(trio.base, "Q8_0", pure=True) as (one, packing):
        with folder.lent(trio.base, "Q8_0", pure=True) as (other, same):
            assert one.read_bytes() == other.read_bytes() and packing == same
        assert list(tmp_path.iterdir()) == [one]
    assert list(tmp_path.iterdir()) == []


def test_every_thins_people_s_own_texts(trio: Trio) -> None:
    """Every n-th; where there is less room, evenly chosen; clusters stay with their texts."""
    texts = tuple(f"text {i}" for i in range(20))
    own = subject(trio, texts=texts, clusters=("p", "q", *texts), n_rows=1000)
    assert own.thinned(1) == own
    few = own.thinned(7)
    assert (few.prompts, few.texts) == (own.prompts[:1], ("text 5", "text 12", "text 19"))
    assert few.clusters == ("p", *few.texts)
    least = replace(own, n_rows=24).thinned(1)
    assert (least.prompts, least.texts) == (own.prompts[:1], ("text 9",))
