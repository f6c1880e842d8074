"""Questions to a judge -> verdicts, as a piece of work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..store import Record, Store
from ..work import Loader, records
from .asks import Ask
from .endpoint import Client, Server
from .reading import Verdict, Verdicts

_Answered = tuple[int, Record]


@dataclass(frozen=True)
class Judging:
    """All verdicts of one judge.

    A record has "verdict" (null where there is none), "reason" and "answers" (as they came).

    Attributes:
        server: the judge.
        asks: no two with the same key.
    """

    server: Server
    asks: Sequence[Ask]

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
        return {"kind": "verdicts", **self.server.content}

    def run(self, missing: Sequence[int], loader: Loader) -> Iterator[_Answered]:
        """Ask what has not been asked yet, several at once; stops asking when closed.

        Raises:
            EftlocalError: where the endpoint does not do its work, once the answers that came
                with the error have been yielded.
        """
        waiting = iter(missing)
        running: set[asyncio.Task[_Answered]] = set()
        with asyncio.Runner() as runner:
            client = runner.run(_connect(self.server))
            try:
                while done := runner.run(self._next(client, waiting, running)):
                    failed = [task for task in done if task.exception() is not None]
                    yield from (task.result() for task in done if task not in failed)
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
        verdict, answers = await client.judge(ask.messages, ask.form)
        return index, {
            "verdict": None if verdict is None else verdict.value,
            "reason": "" if verdict is None else verdict.reason,
            "answers": answers,
        }

    def verdicts(self, store: Store) -> Verdicts:
        """What the judge found, once the work has been performed."""
        found = {}
        for key, record in zip(self.items, records(self, store), strict=True):
            value = record["verdict"]
            found[key] = None if value is None else Verdict(value, record["reason"])
        return found


async def _connect(server: Server) -> Client:
    return Client(server)


async def _stop(client: Client, running: set[asyncio.Task[_Answered]]) -> None:
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await client.close()
