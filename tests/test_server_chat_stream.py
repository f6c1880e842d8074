"""/v1/chat/completions as server-sent events: the form of OpenAI's streams."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from eftlocal.server.openai import sse

from .full_server import (
    ATLAS,
    CHAT,
    COMPLETIONS,
    ENDLESS,
    FRANCE,
    Json,
    Running,
    about,
    read_events,
    serve,
)


def test_the_form_of_a_stream(server: Running) -> None:
    """Role first, then text, then an empty delta with the reason, and the usage where asked for."""
    whole = server.chat()
    chunks = server.stream(CHAT, stream_options={"include_usage": True})
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    *parts, usage = chunks
    assert (
        usage["choices"] == [] and usage["usage"]["total_tokens"] == whole["usage"]["total_tokens"]
    )
    assert all(chunk["usage"] is None and len(chunk["choices"]) == 1 for chunk in parts)
    first, *middle, last = [chunk["choices"][0] for chunk in parts]
    assert first["delta"] == {"role": "assistant", "content": ""}
    assert first["finish_reason"] is None
    assert last["delta"] == {} and last["finish_reason"] == "stop"
    assert all(choice["finish_reason"] is None for choice in middle)
    text = "".join(choice["delta"]["content"] for choice in middle)
    assert text == whole["choices"][0]["message"]["content"]
    assert parts[-1]["timings"]["predicted_n"] == whole["usage"]["completion_tokens"]
    assert "usage" not in server.stream(CHAT)[0]


def test_several_choices(exact_server: Running) -> None:
    """Chunks of several choices mix; each choice is what it is without streaming."""
    settings: dict[str, Any] = {"n": 4, "temperature": 1.5, "seed": 9, "max_tokens": 20}
    whole = exact_server.chat(**settings)
    chunks = exact_server.stream(CHAT, **settings)
    texts = [""] * 4
    reasons: dict[int, str] = {}
    for chunk in chunks:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
        if choice["finish_reason"]:
            reasons[choice["index"]] = choice["finish_reason"]
    for choice in whole["choices"]:
        assert texts[choice["index"]] == choice["message"]["content"]
        assert reasons[choice["index"]] == choice["finish_reason"]
    assert chunks[-1]["eft"] == {"seed": 9}


@pytest.mark.parametrize("stop", [None, "al of Fran", "is Par"])
def test_reports_come_once(server: Running, stop: str | None) -> None:
    """Log-probabilities and the key eft, put together, are those of an answer in one piece."""
    settings: dict[str, Any] = {
        "logprobs": True, "top_logprobs": 2, "alphas": True, "stop": stop, "draft": 1
    }  # fmt: skip
    (whole,) = server.chat(**settings)["choices"]
    logprobs: list[Json] = []
    tokens: list[Json] = []
    for chunk in server.stream(CHAT, **settings):
        choice = chunk["choices"][0]
        if choice["logprobs"]:
            logprobs += choice["logprobs"]["content"]
        tokens += choice.get("eft", {"tokens": []})["tokens"]
    assert logprobs == about(whole["logprobs"]["content"])
    assert tokens == about(whole["eft"]["tokens"])


def test_errors_before_a_stream_are_plain_answers(server: Running) -> None:
    """A status and an error object, no events."""
    error = server.refused(CHAT, messages=FRANCE, stream=True, temperature=-1)
    assert error["param"] == "temperature"
    response = server.client.post(CHAT, json={"messages": FRANCE, "stream": True, "model": "x"})
    assert response.status_code == 404


def test_a_stream_that_the_server_ends(server: Running) -> None:
    """The last event but [DONE] says why; the client sees a whole answer."""
    with serve(ATLAS) as other:
        body = {"messages": FRANCE, "stream": True, **ENDLESS}
        with httpx.stream("POST", other.url + CHAT, json=body, timeout=30) as response:
            texts = response.iter_text()
            text = next(texts)
            other.do(other.host.close(0))
            text += "".join(texts)
    *_, last = read_events(text)
    assert last["error"]["type"] == "unavailable_error" and "shutting" in last["error"]["message"]


def test_comments_keep_a_silent_stream_open(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a request waits for a sequence its stream has comments, which readers skip."""
    monkeypatch.setattr("eftlocal.server.openai.answer.KEEP_ALIVE_SECONDS", 0.02)
    endless = {"prompt": "The", "stream": True, **ENDLESS}
    with (
        httpx.stream("POST", server.url + COMPLETIONS, json=endless, timeout=30) as one,
        httpx.stream("POST", server.url + COMPLETIONS, json=endless, timeout=30) as two,
    ):
        server.until(lambda: server.worker.n_running == 2)
        response = server.client.post(CHAT, json={"messages": FRANCE, "stream": True})
        assert one.status_code == two.status_code == 200
    text = response.text
    assert sse.KEEP_ALIVE in text
    assert read_events(text)[-1]["choices"][0]["finish_reason"] == "stop"


_LONG = json.dumps(ENDLESS)[1:-1]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, '{"messages": [{"role": "user", "content": "Hi"}], %s}' % _LONG),  # noqa: UP031
        (CHAT, '{"messages": [{"role": "user", "content": "Hi"}], "stream": true, "n": 9, %s}' % _LONG),  # noqa: UP031, E501
        (COMPLETIONS, '{"prompt": ["The", "A", "One", "My", "It"], %s}' % _LONG),  # noqa: UP031
        (COMPLETIONS, '{"prompt": "The", "stream": true, %s}' % _LONG),  # noqa: UP031
    ],
)  # fmt: skip
@pytest.mark.parametrize("when", ["at once", "running", "queued"])
def test_a_client_that_leaves(server: Running, path: str, body: str, when: str) -> None:
    """Its jobs end, whether they run or wait; the streams of others go on."""
    server.until_jobs(0, 0)
    if when == "queued":
        others = [server.open(COMPLETIONS, f'{{"prompt": "The", {_LONG}}}') for _ in range(2)]
        server.until(lambda: server.worker.n_running == 2)
        jobs = set(server.worker._running)
        connection = server.open(path, body)
        server.until(lambda: server.worker.n_waiting)
        connection.close()
        server.until(lambda: not server.worker.n_waiting)
        assert set(server.worker._running) <= jobs
        for other in others:
            other.close()
    else:
        connection = server.open(path, body)
        if when == "running":
            server.until(lambda: server.worker.n_running)
        connection.close()
    server.until_jobs(0, 0, 2.0)
