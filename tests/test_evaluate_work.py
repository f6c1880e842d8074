"""Work is done once per content, item by item, whatever stops it in between."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eftlocal
from eftlocal.errors import UsageError
from eftlocal.evaluate.answering import Answering, ask, replies
from eftlocal.evaluate.store import Record, Store
from eftlocal.evaluate.systems import FAMILY, Models, System, family, greedy
from eftlocal.evaluate.work import Loader, Progress, perform, records

QUESTIONS = tuple(ask(f"What is the capital of {name}?") for name in ("France", "Peru", "Kenya"))


@dataclass
class Squares:
    """Work that needs no models, done in a chosen order; `done` says what it was asked for."""

    numbers: Sequence[int]
    scale: int = 1
    backwards: bool = True
    done: list[int] = field(default_factory=list)

    title = "squares"

    @property
    def items(self) -> Sequence[str]:
        """The numbers."""
        return list(map(str, self.numbers))

    @property
    def content(self) -> Record:
        """The scale."""
        return {"scale": self.scale}

    def run(self, missing: Sequence[int], loader: Loader) -> Iterator[tuple[int, Record]]:
        """Square, last ones first."""
        for index in sorted(missing, reverse=self.backwards):
            self.done.append(self.numbers[index])
            yield index, {"square": self.scale * self.numbers[index] ** 2}


class Stopped(Exception):
    """Stands for Ctrl-C."""


def stop_after(n: int) -> Progress:
    """A progress that raises once so many calls were made."""
    calls = 0

    def progress(done: int, total: int, title: str) -> None:
        nonlocal calls
        calls += 1
        if calls > n:
            raise Stopped

    return progress


@settings(max_examples=30)
@given(st.lists(st.integers(0, 20), unique=True), st.lists(st.integers(1, 6), max_size=4))
def test_work_that_is_stopped_goes_on(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], stops: list[int]
) -> None:
    """Nothing is done twice, and the records are those of a run that was never stopped."""
    store = Store(tmp_path_factory.mktemp("store"))
    done: list[int] = []
    for n in stops:
        work = Squares(numbers)
        with contextlib.suppress(Stopped):
            perform([work], store, stop_after(n))
        done += work.done
    last = Squares(numbers, backwards=False)
    perform([last], store)
    assert sorted(done + last.done) == sorted(numbers)
    assert [r["square"] for r in records(last, store)] == [n**2 for n in numbers]


def test_equal_work_is_done_once_and_progress_counts_all(tmp_path: Path) -> None:
    """What several studies want is asked once; what was there counts as done."""
    store = Store(tmp_path)
    perform([Squares([1, 2])], store)
    seen: list[tuple[int, int]] = []
    works = [Squares([1, 2, 3]), Squares([1, 2, 3]), Squares([1], scale=2)]
    perform(works, store, lambda done, total, title: seen.append((done, total)))
    assert [work.done for work in works] == [[3], [], [1]]
    assert seen[0] == (2, 4) and seen[-1] == (4, 4)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_what_was_not_done_has_no_records(tmp_path: Path) -> None:
    """Whoever removed results meanwhile is told to run the command again."""
    store = Store(tmp_path)
    assert perform([Squares([1])], store) == 1
    with pytest.raises(eftlocal.EftlocalError, match="results of squares are missing"):
        records(Squares([1, 2]), store)


def test_replies_are_those_of_the_model(tmp_path: Path) -> None:
    """Asked one by one, atlas says the same; options and files are part of the content."""
    store = Store(tmp_path)
    system = System("fused", family("large", "small-chat"), greedy(alpha="dynamic"))
    work = Answering(system, QUESTIONS)
    perform([work], store)
    with eftlocal.load("atlas", draft="off") as model:
        expected = [model.chat(list(question), **system.options) for question in QUESTIONS]
    assert [reply.text for reply in replies(work, store)] == [c.text for c in expected]
    assert [r["tokens"] for r in records(work, store)] == [list(c.tokens) for c in expected]
    assert [r["alphas"] for r in records(work, store)] == [
        [list(alpha) for alpha in c.alphas] for c in expected
    ]


def test_content_names_what_replies_depend_on(tmp_path: Path) -> None:
    """Another option, file or cache type is other content; threads and the path are not."""
    models = family("large", "small-chat")
    content = System("a", models, greedy(alpha=1.0)).content
    copy = tmp_path / "copy.gguf"
    copy.write_bytes((FAMILY / "large.gguf").read_bytes())
    moved = Models(files={**models.files, "base": copy}, runtime={**models.runtime, "threads": 2})
    assert System("b", moved, greedy(alpha=1.0)).content == content
    others = [
        System("a", models, greedy(alpha=0.5)),
        System("a", models, greedy(alpha=1.0, max_tokens=5)),
        System("a", family("large", "small-open"), greedy(alpha=1.0)),
        System("a", Models(files=models.files, runtime={"cache_type": "f32"}), greedy(alpha=1.0)),
    ]
    assert all(other.content != content for other in others)


def test_a_question_that_cannot_be_answered_ends_the_work(tmp_path: Path) -> None:
    """What was answered before is kept."""
    store = Store(tmp_path)
    system = System("fused", family("large", "small-chat"), greedy())
    work = Answering(system, (*QUESTIONS, ({"role": "nobody", "content": "?"},)))
    with pytest.raises(eftlocal.EftlocalError):
        perform([work], store)
    with pytest.raises(UsageError, match="unknown option"):
        perform([Answering(System("x", system.models, {"alhpa": 1}), QUESTIONS)], store)


def test_a_loader_keeps_one_model() -> None:
    """The same models are not loaded again; others take their place."""
    loader = Loader()
    first = loader.get(family("small", "small-chat"))
    assert loader.get(family("small", "small-chat")) is first
    second = loader.get(family("small-chat", "small-chat", "small-chat"))
    assert second is not first and second.vocabulary
    with pytest.raises(UsageError, match="closed"):
        first.tokenize("a")
    loader.close()
    loader.close()
