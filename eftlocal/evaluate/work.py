"""Pieces of work: what is to be found out, item by item, once per content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from .. import FusedModel
from ..errors import EftlocalError
from .store import Record, Store, digest
from .systems import Models

Progress = Callable[[int, int, str], None]
"""Called with items that are done, items in all, and what is being done; may raise to stop."""


class Loader:
    """Keeps the models that were used last, because the next work often wants the same."""

    def __init__(self) -> None:
        self._models: Models | None = None
        self._loaded: FusedModel | None = None

    def get(self, models: Models) -> FusedModel:
        """These models, loaded; others are closed.

        Raises:
            EftlocalError: as `eftlocal.load` does.
        """
        if self._loaded is None or models != self._models:
            self.close()
            self._loaded, self._models = models.load(), models
        return self._loaded

    def close(self) -> None:
        """Close what is loaded."""
        if self._loaded is not None:
            self._loaded.close()
        self._models = self._loaded = None


class Work(Protocol):
    """Something to find out about several items, each on its own."""

    @property
    def title(self) -> str:
        """What it is called while it is done."""

    @property
    def items(self) -> Sequence[str]:
        """A name for each item; with `content` it says all that its record depends on."""

    @property
    def content(self) -> Record:
        """What records depend on beside their items, as JSON's types."""

    def run(self, missing: Sequence[int], loader: Loader) -> Iterator[tuple[int, Record]]:
        """Find out about the items of these indices, in any order."""


def perform(
    works: Iterable[Work], store: Store, progress: Progress = lambda done, total, title: None
) -> int:
    """Do what is not in the store yet; what is done stays done, however this ends.

    Args:
        works: in the order in which they are done; the same may be there several times.
        store: where records go.
        progress: told of every item; counts those that were there already as done.

    Returns:
        How many items there are in all.

    Raises:
        EftlocalError: where models cannot be loaded, a reply fails, or the store cannot be written.
    """
    unique: dict[str, Work] = {}
    for work in works:
        unique.setdefault(digest([work.content, list(work.items)]), work)
    left = {name: len(_missing(work, store)) for name, work in unique.items()}
    total = sum(len(work.items) for work in unique.values())
    done = total - sum(left.values())
    progress(done, total, "")
    loader = Loader()
    try:
        for name, work in unique.items():
            # Looked for again: another work may have had some of its items.
            missing = _missing(work, store) if left[name] else []
            done += left[name] - len(missing)
            with store.shelf(work.content) as shelf:
                for index, record in work.run(missing, loader) if missing else ():
                    shelf.put(work.items[index], record)
                    done += 1
                    progress(done, total, work.title)
    finally:
        loader.close()
    return total


def _missing(work: Work, store: Store) -> list[int]:
    with store.shelf(work.content) as shelf:
        return [i for i, item in enumerate(work.items) if shelf.get(item) is None]


def records(work: Work, store: Store) -> list[Record]:
    """The records of a work that has been performed, in the order of its items.

    Raises:
        EftlocalError: for an item whose record is not there (any more).
    """
    with store.shelf(work.content) as shelf:
        found = []
        for item in work.items:
            record = shelf.get(item)
            if record is None:
                raise EftlocalError(
                    f"results of {work.title} are missing in {store.folder}; run the command again"
                )
            found.append(record)
        return found
