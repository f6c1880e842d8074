"""Questions to a judge -> verdicts, as a piece of work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..store import Record, Shelf, Store
from ..work import Loader
from .asks import Ask
from .endpoint import Client, Server
from .reading import Verdict, Verdicts

_Answered = tuple[int, Record]


@dataclass(frozen=True)
class Judging:
    """All verdicts of one judge.

    A record has "verdict", "reason" and "answers" (as they came). An ask without a verdict has no
    record here, so that the next run asks it again; what was answered instead is kept beside
    them, with "refused": the judge's words where it did not take the question.

    Attributes:
        server: the judge.
        asks: no two with the same key.
        store: where this work's records are.
    """

    server: Server
    asks: Sequence[Ask]
    store: Store = field(compare=False)

    @property
    def title(self) -> str:
        """The judge's."""
        return f"judge {self.server.model}"

    @cached_property
    def items(self) -> Sequence[str]:
        """The keys of the asks."""
        return [ask.key for ask in self.asks]

    @property
    def content(self) -> Record:
        """The judge's."""
        return {"kind": "judgements", **self.server.content}

    @property
    def _content_beside(self) -> Record:
        return {"kind": "no judgements", **self.server.content}

    def run(self, missing: Sequence[int], loader: Loader) -> Iterator[_Answered]:
        """Ask what has no verdict yet, several at once; stops asking when closed.

        Yields only verdicts.

        Raises:
            EftlocalError: where the endpoint does not do its work, once the answers that came
                with the error have been yielded.
        """
        waiting = iter(missing)
        running: set[asyncio.Task[_Answered]] = set()
        has_answered = len(missing) < len(self.items)
        with self.store.shelf(self._content_beside) as beside, asyncio.Runner() as runner:
            client = runner.run(_connect(self.server, has_answered))
            try:
                while done := runner.run(self._next(client, waiting, running)):
                    failed = [task for task in done if task.exception() is not None]
                    for index, record in (task.result() for task in done if task not in failed):
                        if record["verdict"] is None:
                            key = self.items[index]
                            beside.put(f"{key} {len(_records(beside, key))}", record)
                        else:
                            yield index, record
                    for task in failed:
                        task.result()
            finally:
                runner.run(_stop(client, running))

    async def _next(
        self, client: Client, waiting: Iterator[int], running: set[asyncio.Task[_Answered]]
    ) -> list[asyncio.Task[_Answered]]:
        """Keep so many requests under way, and wait for one of them; none where all are done."""
        while len(running) < self.server.concurrency and (i := next(waiting, None)) is not None:
            running.add(asyncio.create_task(self._ask(client, i)))
        if not running:
            return []
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        running -= done
        return list(done)

    async def _ask(self, client: Client, index: int) -> _Answered:
        ask = self.asks[index]
        given = await client.judge(ask.messages, ask.form)
        if given.verdict is None:
            return index, {
                "verdict": None,
                "answers": list(given.answers),
                "refused": given.refused,
            }
        return index, {
            "verdict": given.verdict.value,
            "reason": given.verdict.reason,
            "answers": list(given.answers),
        }

    def verdicts(self) -> Verdicts:
        """What the judge found, once the work has been performed."""
        with self.store.shelf(self.content) as shelf:
            found = {key: shelf.get(key) for key in self.items}
        return {
            key: None if record is None else Verdict(record["verdict"], record["reason"])
            for key, record in found.items()
        }

    def unjudged(self) -> dict[str, Record]:
        """Keys of the asks without a verdict -> the record of what was answered last."""
        missing = [key for key, verdict in self.verdicts().items() if verdict is None]
        with self.store.shelf(self._content_beside) as beside:
            return {key: _records(beside, key)[-1] for key in missing}


def _records(shelf: Shelf, key: str) -> list[Record]:
    """All that was kept about a key that has no verdict, one record per run."""
    found: list[Record] = []
    while (record := shelf.get(f"{key} {len(found)}")) is not None:
        found.append(record)
    return found


async def _connect(server: Server, has_answered: bool) -> Client:
    return Client(server, has_answered)


async def _stop(client: Client, running: set[asyncio.Task[_Answered]]) -> None:
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await client.close()
