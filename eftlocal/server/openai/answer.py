"""An answer of OpenAI's API, in one piece or in chunks, whatever its choices are."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from ... import __version__
from ...model import FusedModel
from ...stream import Prepared
from ..worker import Worker
from .choices import Choices, News
from .fields import CommonFields
from .sse import KEEP_ALIVE_SECONDS, EventStream
from .usage import Spent, timings, usage

Json = dict[str, Any]

_fingerprints: WeakKeyDictionary[FusedModel, str] = WeakKeyDictionary()


class Choice(Protocol):
    """Turns the tokens of one choice into parts of chunks, and these into a whole."""

    @property
    def spent(self) -> Spent:
        """What it took; only after its end."""

    def opening(self) -> list[Json]:
        """The parts that come before any token."""

    def take(self, news: News) -> list[Json]:
        """The parts that news make; the last one of all has the finish_reason."""

    def whole(self, parts: Sequence[Json]) -> Json:
        """All parts as one."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The names of one kind of answers: how ids begin, `object` of a whole and of a chunk."""

    prefix: str
    whole: str
    chunk: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A request that has been checked, and what follows its choices.

    Attributes:
        kind: of the answer.
        body: what was asked for.
        prepared: one per choice.
        choices: follow them.
        seed: of all choices; None where it does not matter.
    """

    kind: Kind
    body: CommonFields
    prepared: Sequence[Prepared]
    choices: Sequence[Choice]
    seed: int | None

    async def send(self, request: Request, worker: Worker) -> Response:
        """Run the choices and send what comes of them.

        Raises:
            Overloaded, Closing: where the worker takes no more.
            EftlocalError: what ended a choice, where that was an error.
        """
        running = Choices(worker, self.prepared)
        if self.body.stream:
            chunks = self.chunks(request, running, worker.model)
            return EventStream(request, chunks, running.cancel)
        return JSONResponse(await self.whole(request, running, worker.model))

    def head(self, name: str, model: FusedModel) -> Json:
        """The fields that an answer, and every chunk of one, begins with."""
        return {
            "id": f"{self.kind.prefix}-{uuid.uuid4().hex}",
            "object": name,
            "created": int(time.time()),
            "model": model.name,
            "system_fingerprint": fingerprint(model),
        }

    def tail(self, request: Request) -> Json:
        """What is known when all choices are over, beside the usage; the log gets counts of it."""
        spent = usage(self.spent)
        request.state.tokens = spent["prompt_tokens"], spent["completion_tokens"]
        more = {} if self.seed is None else {"eft": {"seed": self.seed}}
        return {"timings": timings(self.spent), **more}

    @property
    def spent(self) -> list[Spent]:
        """What each choice took."""
        return [choice.spent for choice in self.choices]

    async def whole(self, request: Request, running: Choices, model: FusedModel) -> Json:
        """The answer in one piece."""
        parts: list[list[Json]] = [choice.opening() for choice in self.choices]
        async with aclosing(running.news()) as all_news:
            async for news in all_news:
                assert news is not None, "only a limit in seconds gives None"
                parts[news.choice] += self.choices[news.choice].take(news)
        choices = [c.whole(own) for c, own in zip(self.choices, parts, strict=True)]
        head = self.head(self.kind.whole, model)
        return {**head, "choices": choices, "usage": usage(self.spent), **self.tail(request)}

    async def chunks(
        self, request: Request, running: Choices, model: FusedModel
    ) -> AsyncGenerator[Mapping[str, Any] | None]:
        """The answer in pieces; None is a while without news."""
        head = self.head(self.kind.chunk, model)
        with_usage = self.body.has_usage_chunk
        if with_usage:
            head["usage"] = None
        for choice in self.choices:
            for part in choice.opening():
                yield {**head, "choices": [part]}
        n_open = len(self.choices)
        async with aclosing(running.news(KEEP_ALIVE_SECONDS)) as all_news:
            async for news in all_news:
                if news is None:
                    yield None
                    continue
                n_open -= news.completion is not None
                for part in self.choices[news.choice].take(news):
                    is_last = part["finish_reason"] and not n_open
                    yield {**head, "choices": [part], **(self.tail(request) if is_last else {})}
        if with_usage:
            yield {**head, "choices": [], "usage": usage(self.spent)}


def fingerprint(model: FusedModel) -> str:
    """The same for a model as long as its files, how they were loaded, and eftlocal are."""
    if model not in _fingerprints:
        parts = (__version__, model.name, sorted(model.files.items()), model.runtime)
        digest = hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()
        _fingerprints[model] = f"eft-{digest[:12]}"
    return _fingerprints[model]
