"""What large, wrong and many requests to OpenAI's routes cost: little, and nobody else's answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.requests import Request

from eftlocal.server.failures import ApiError
from eftlocal.server.openai.body import Body
from eftlocal.server.openai.choices import Choices
from eftlocal.server.openai.schemas import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TemplateRequest,
)
from eftlocal.server.openai.sse import EventStream

from .full_server import ATLAS, CHAT, COMPLETIONS, ENDLESS, FRANCE, Running, serve

MANY = 300_000


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server whose queue holds two requests."""
    with serve(ATLAS, queue=2) as running:
        yield running


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (CompletionRequest, {"prompt": [1] * MANY + ["a"]}),
        (CompletionRequest, {"prompt": [1.5] * MANY}),
        (CompletionRequest, {"prompt": [["a"] * MANY]}),
        (CompletionRequest, {"prompt": ["a"] * MANY}),
        (CompletionRequest, {"prompt": [[]] * MANY}),
        (CompletionRequest, {"prompt": "a", "stop": [1] * MANY}),
        (CompletionRequest, {"prompt": "a", "logit_bias": dict.fromkeys(map(str, range(MANY)), 1)}),
        (CompletionRequest, {"prompt": "a", "weight": dict.fromkeys(map(str, range(MANY)), "x")}),
        (ChatRequest, {"messages": [1] * MANY}),
        (ChatRequest, {"messages": [{}], "tools": [1] * MANY}),
        (ChatRequest, {"messages": [{}], "modalities": [1] * MANY}),
        (ChatRequest, dict.fromkeys(map(str, range(MANY)))),
        (DetokenizeRequest, {"tokens": ["a"] * MANY}),
        (TemplateRequest, {"messages": [1] * MANY}),
    ],
)  # fmt: skip
def test_a_long_wrong_list_is_one_error(form: type[Body], body: dict[str, Any]) -> None:
    """It is not one error for each item, which would take gigabytes."""
    with pytest.raises((ApiError, ValidationError)) as caught:
        form.model_validate(body)
    if isinstance(caught.value, ValidationError):
        assert caught.value.error_count() < 4


def test_a_full_queue(server: Running) -> None:
    """503 with the time to wait, before anything is sent, whether or not it streams."""
    with ThreadPoolExecutor(4) as pool:
        running = []
        for state in ((1, 0), (2, 0), (2, 1), (2, 2)):
            body = {"prompt": "The", **ENDLESS}
            running.append(pool.submit(server.client.post, COMPLETIONS, json=body))
            server.until_jobs(*state)
        for stream in (False, True):
            response = server.client.post(CHAT, json={"messages": FRANCE, "stream": stream})
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) >= 1
            assert response.json()["error"]["type"] == "unavailable_error"
        assert [future.result().status_code for future in running] == [200] * 4


def test_many_choices_leave_room_for_others(server: Running) -> None:
    """A request with more choices than there are places is done, and others get their turn."""
    body = {"prompt": "The", "n": 40, "max_tokens": 20, "temperature": 1.0}
    with ThreadPoolExecutor(1) as pool:
        many = pool.submit(server.client.post, COMPLETIONS, json=body)
        server.until(lambda: server.worker.n_running)
        answer = server.chat(max_tokens=2)
        assert not many.done()
        assert answer["choices"][0]["finish_reason"] == "length"
        assert len(many.result().json()["choices"]) == 40


def test_a_stream_that_never_begins(server: Running) -> None:
    """A client that is gone before the first chunk ends what was started for it."""

    async def leave() -> None:
        bias = dict.fromkeys(server.worker.model.engine.eog, -100.0)
        options: dict[str, Any] = {"max_tokens": 900, "logit_bias": bias}
        prepared = server.worker.model.prepare_complete("The", **options)
        running = Choices(server.worker, [prepared] * 3)
        scope = {"type": "http", "method": "POST", "path": COMPLETIONS, "headers": []}

        async def chunks() -> AsyncGenerator[Mapping[str, Any] | None]:
            read.append(True)
            yield None

        async def receive() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async def send(_: object) -> None:
            await asyncio.sleep(60)

        await EventStream(Request(scope), chunks(), running.cancel)(scope, receive, send)

    read: list[bool] = []
    server.until_jobs(0, 0)
    server.do(leave())
    server.until_jobs(0, 0, 0.5)
    assert not read
