"""A request to /api/chat or /api/generate, from its model to its last line."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse, Response
from starlette.requests import Request

from ...model import FusedModel
from ...stream import Completion, Prepared
from ..jobs import Job
from ..openai.pieces import pieces_of
from ..service import Service
from .options import keep_alive_of
from .reply import Form, Part, Reply, Wanted, ending
from .routing import JsonLines, nanoseconds, timestamp
from .schemas import ChatBody, GenerateBody

Json = dict[str, Any]
Context = Callable[[str], list[int]]
"""The answer's text -> the `context` of the last line."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A request that has been checked.

    Attributes:
        prepared: what is generated.
        form: of the answer.
        is_raw: the text is shown as it is.
        context: makes the `context`, where there is one.
    """

    prepared: Prepared
    form: Form
    is_raw: bool = False
    context: Context | None = None


async def load_or_unload(body: ChatBody | GenerateBody, service: Service, form: Form) -> Response:
    """Answer a request that has nothing to generate from."""
    started = time.perf_counter()
    keep_alive = keep_alive_of(body.keep_alive)
    name = service.host.find(body.model).name
    if keep_alive == 0:
        await service.host.release(name)
    else:
        await service.host.worker(name, wait=True, keep_alive=keep_alive)
    return JSONResponse(
        {
            "model": name,
            "created_at": timestamp(),
            **form(Part()),
            "done": True,
            "done_reason": "unload" if keep_alive == 0 else "load",
            "total_duration": nanoseconds(time.perf_counter() - started),
        }
    )


async def respond(
    request: Request,
    body: ChatBody | GenerateBody,
    service: Service,
    prepare: Callable[[FusedModel], Ready],
) -> Response:
    """Load the model where that is needed, generate, and answer in lines or in one piece.

    Args:
        request: that is answered.
        body: what was asked for.
        service: of the server.
        prepare: finds everything that can be wrong; called in a thread.
    """
    started = time.perf_counter()
    keep_alive = keep_alive_of(body.keep_alive)
    worker = await service.host.worker(body.model, wait=True, keep_alive=keep_alive)
    load = time.perf_counter() - started
    ready, wanted = await worker.call(lambda model: _prepare(body, model, prepare))
    job = worker.submit(ready.prepared)
    reply = Reply(ready.prepared, wanted)
    answer = _Answer(request, job, worker.model.name, ready, reply, started, load)
    if body.is_streamed:
        return JsonLines(request, answer.lines(), job.cancel)
    return JSONResponse(await answer.whole())


def _prepare(
    body: ChatBody | GenerateBody, model: FusedModel, prepare: Callable[[FusedModel], Ready]
) -> tuple[Ready, Wanted]:
    ready = prepare(model)
    logprobs, extension = bool(body.logprobs), body.wanted.reports_tokens
    pieces = pieces_of(model) if logprobs or extension else None
    shows = body.think is not False
    return ready, Wanted(ready.form, ready.is_raw, shows, pieces, logprobs, extension)


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer under way.

    Attributes:
        request: that is answered.
        job: generates it.
        model: the name of the entry.
        ready: what was asked for.
        reply: follows the tokens.
        started: time.perf_counter of the request.
        load: seconds of waiting for the model.
    """

    request: Request
    job: Job
    model: str
    ready: Ready
    reply: Reply
    started: float
    load: float

    async def lines(self) -> AsyncGenerator[Json]:
        """The answer in pieces."""
        async with self.job:
            async for events in self.job.batches():
                for part in self.reply.feed(events):
                    yield {**self._head(), **part, "done": False}
            for part in self.reply.finish():
                yield {**self._head(), **part, "done": False}
            yield {**self._head(), **self.ready.form(Part()), **self._end(self.job.completion)}

    async def whole(self) -> Json:
        """The answer in one piece."""
        async with self.job:
            async for events in self.job.batches():
                for _ in self.reply.feed(events):
                    pass
            for _ in self.reply.finish():
                pass
            return {**self._head(), **self.reply.whole(), **self._end(self.job.completion)}

    def _head(self) -> Json:
        return {"model": self.model, "created_at": timestamp()}

    def _end(self, completion: Completion) -> Json:
        times = completion.timings
        self.request.state.tokens = times.prompt_tokens, times.generated_tokens
        make = self.ready.context
        context = {"context": make(self.reply.answer)} if make else {}
        total = time.perf_counter() - self.started
        return {**ending(completion, total, self.load), **context}
