"""Work ends when its client leaves: every `finally` has run before the response is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.requests import Request

from eftlocal.server.disconnect import ClosingStream, run_until_disconnect
from eftlocal.server.ollama.routing import JsonLines
from eftlocal.server.states import ClientLeft


class Connection:
    """The server's side of a connection: it is there until `leave` is set."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()
        self.sent: list[Any] = []
        self.send_error: OSError | None = None

    async def receive(self) -> Any:
        """What the connection says: nothing, until the client is gone."""
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Take a part of the answer."""
        if self.send_error is not None:
            raise self.send_error
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        """What the client got."""
        return b"".join(message.get("body", b"") for message in self.sent)


def request_on(connection: Connection) -> Request:
    """A request whose body has been read."""
    return Request({"type": "http"}, connection.receive)


def test_an_answer_comes_as_if_nothing_watched() -> None:
    """Results and errors are passed on."""

    async def good() -> int:
        await asyncio.sleep(0)
        return 7

    async def bad() -> int:
        await asyncio.sleep(0)
        raise KeyError("x")

    async def test() -> None:
        request = request_on(Connection())
        assert await run_until_disconnect(request, good()) == 7
        with pytest.raises(KeyError):
            await run_until_disconnect(request, bad())
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(test())


def test_work_is_cancelled_when_the_client_leaves() -> None:
    """And it is over, not only told to end."""
    steps: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            steps.append("cleaned up")

    async def test() -> None:
        connection = Connection()
        asyncio.get_running_loop().call_later(0.02, connection.leave.set)
        with pytest.raises(ClientLeft):
            await run_until_disconnect(request_on(connection), slow())
        assert steps == ["cleaned up"]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(test())


def test_work_ends_with_the_request_that_waits_for_it() -> None:
    """Where the server cancels the request itself."""
    steps: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            steps.append("cleaned up")

    async def test() -> None:
        work = run_until_disconnect(request_on(Connection()), slow())
        task = asyncio.create_task(work)
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert steps == ["cleaned up"]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(test())


@pytest.mark.parametrize("spec", ["2.0", "2.4"])
@pytest.mark.parametrize("how", ["whole", "leaves", "breaks", "fails"])
def test_streams_close_their_generator(how: str, spec: str) -> None:
    """At the end, when the client leaves, when sending fails, when the generator fails."""
    steps: list[str] = []
    connection = Connection()

    async def chunks() -> AsyncGenerator[str]:
        try:
            yield "a"
            if how == "breaks":
                connection.send_error = OSError("broken")
            elif how == "leaves":
                connection.leave.set()
                await asyncio.sleep(60)
            if how == "fails":
                raise KeyError("x")
            yield "b"
        finally:
            steps.append("closed")

    async def test() -> None:
        response = ClosingStream(chunks(), "text/plain")
        scope = {"type": "http", "asgi": {"spec_version": spec}}
        try:
            await response(scope, connection.receive, connection.send)
        finally:
            # Here, and not when the event loop ends, which closes generators, too.
            assert steps == ["closed"]

    if how == "fails":
        with pytest.raises(KeyError):
            asyncio.run(test())
    else:
        asyncio.run(test())
    assert connection.body == (b"ab" if how == "whole" else b"a")


def test_what_was_started_for_a_stream_ends_without_a_single_line() -> None:
    """A client that leaves before the first line: the generator never ran, nor its `finally`."""
    steps: list[str] = []

    async def chunks() -> AsyncGenerator[dict[str, Any]]:
        steps.append("began")
        yield {}

    async def test() -> None:
        connection = Connection()

        async def blocked(_: Any) -> None:
            connection.leave.set()
            await asyncio.sleep(60)

        request = request_on(connection)
        response = JsonLines(request, chunks(), lambda: steps.append("ended"))
        await response({"type": "http"}, connection.receive, blocked)

    asyncio.run(test())
    assert steps == ["ended"]
