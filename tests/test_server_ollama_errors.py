"""Ollama's API: errors in its form, clients that leave, thinking and tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest

from .conftest import SMALL, Trio
from .full_server import Running, made, serve
from .gguf_models import CHAT_TEMPLATE, write_gguf

MESSAGES = [{"role": "user", "content": "Hi"}]
ENDLESS = {"regex": "[ab]{3000,}"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Weather in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
TEMPLATE = (
    '{%- if tools %}<tool_call>{"name": ..., "arguments": ...}</tool_call>'
    "{{ tools | tojson }}{%- endif %}<think></think>" + CHAT_TEMPLATE
)


@pytest.fixture(scope="module")
def talker(trio: Trio, tmp_path_factory: pytest.TempPathFactory) -> Trio:
    """A trio whose template has tools and thinking."""
    file = tmp_path_factory.mktemp("talker") / "tuned.gguf"
    return Trio(trio.base, write_gguf(file, SMALL, seed=2, chat_template=TEMPLATE), trio.reference)


@pytest.fixture(scope="module")
def server(talker: Trio) -> Iterator[Running]:
    """A server of it."""
    with serve(made("talker", talker, ctx=2048)) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[ollama.Client]:
    """Ollama's client of it."""
    with ollama.Client(server.url) as made_client:
        yield made_client


def refused(server: Running, path: str, status: int = 400, **body: Any) -> str:
    """The sentence of an answer that is an error."""
    answer = server.post(path, status, **{"model": "talker", **body})
    assert set(answer) == {"error"}
    assert isinstance(answer["error"], str)
    assert "\n" not in answer["error"]
    return answer["error"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}, "text only"),
        ({"messages": [{"role": "user", "content": "x", "colour": 1}]}, "'colour'"),
        ({"messages": MESSAGES, "colour": 1}, "'colour' is not a known field"),
        ({"messages": MESSAGES, "options": {"colour": 1}}, "'colour' is not a known field"),
        (
            {"messages": MESSAGES, "options": {"num_ctx": 4096}},
            "num_ctx = 4096 is more than the 2048",
        ),
        ({"messages": MESSAGES, "options": {"mirostat": 1}}, "mirostat"),
        ({"messages": MESSAGES, "options": {"temperature": -1}}, "temperature"),
        ({"messages": MESSAGES, "options": {"temperature": "warm"}}, "temperature"),
        ({"messages": MESSAGES, "options": {"seed": 10**29}}, "seed"),
        ({"messages": MESSAGES, "options": {"alpha": "often"}}, "alpha"),
        ({"messages": MESSAGES, "format": "xml"}, "format"),
        ({"messages": MESSAGES, "format": {"type": "nonsense"}}, "nonsense"),
        ({"messages": MESSAGES, "keep_alive": "soon"}, "keep_alive"),
        ({"messages": MESSAGES, "think": "a lot"}, "think"),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, "token"),
        ({"messages": MESSAGES, "model": ""}, "model"),
    ],
)
def test_bad_chats_are_refused_in_one_sentence(
    server: Running, body: dict[str, Any], sentence: str
) -> None:
    """What is wrong, in Ollama's form; streaming or not."""
    assert sentence in refused(server, "/api/chat", **body)
    assert sentence in refused(server, "/api/chat", stream=False, **body)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "template": "{{ .Prompt }}"}, "template"),
        ({"prompt": "x", "images": ["aGk="]}, "images"),
        ({"prompt": "x", "raw": True, "system": "y"}, "raw"),
        ({"prompt": ["x"]}, "prompt"),
    ],
)
def test_bad_prompts_are_refused_in_one_sentence(
    server: Running, body: dict[str, Any], sentence: str
) -> None:
    """The same for /api/generate."""
    assert sentence in refused(server, "/api/generate", **body)


def test_what_this_server_does_not_do_says_so(server: Running, client: ollama.Client) -> None:
    """501 for what Ollama has beside; 404 and 405 for the rest; all in its form."""
    for work in (
        lambda: client.embed("talker", "x"),
        lambda: client.embeddings("talker", "x"),
        lambda: client.pull("talker"),
        lambda: client.push("talker"),
        lambda: client.create("new", from_="talker"),
        lambda: client.copy("talker", "new"),
        lambda: client.delete("talker"),
    ):
        with pytest.raises(ollama.ResponseError) as caught:
            work()
        assert caught.value.status_code == 501
        assert caught.value.error
    assert "nothing at this address" in server.get("/api/nothing", 404)["error"]
    assert "use POST" in server.get("/api/chat", 405)["error"]
    assert "use GET" in server.post("/api/tags", 405)["error"]
    assert "talker" in refused(server, "/api/chat", 404, model="nobody", messages=MESSAGES)
    assert "talker" in refused(server, "/api/show", 404, model="nobody")
    assert "model is missing" in server.post("/api/show", 400)["error"]
    broken = server.client.post("/api/chat", content=b"{")
    assert broken.status_code == 400
    assert set(broken.json()) == {"error"}


def exactly(text: str, **more: Any) -> dict[str, Any]:
    """Options with which a model writes one text, however random it is."""
    special = "\\.^$*+?()[]{}|"
    pattern = "".join(f"\\{c}" if c in special else c for c in text)
    return {"regex": pattern, "temperature": 0, **more}


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_stands_apart(client: ollama.Client, stream: bool) -> None:
    """In `thinking`; left out where think is false; as it is where the prompt is raw."""
    options: Any = exactly("<think>So it is.</think>Yes")

    def told(think: bool | None, raw: bool = False) -> tuple[str, str]:
        parts = (
            client.generate("talker", "Hi", options=options, think=think, raw=raw, stream=True)
            if stream
            else [client.generate("talker", "Hi", options=options, think=think, raw=raw)]
        )
        found = list(parts)
        thinking = "".join(part.thinking or "" for part in found)
        return thinking, "".join(part.response or "" for part in found)

    assert told(None) == told(True) == ("So it is.", "Yes")
    assert told(False) == ("", "Yes")
    assert told(True, raw=True) == ("", "<think>So it is.</think>Yes")


@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_tools_are_objects(client: ollama.Client, stream: bool) -> None:
    """Ollama's form: arguments are an object, and a call comes whole."""
    call = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
    options: Any = exactly(call)
    if stream:
        parts = list(client.chat("talker", MESSAGES, tools=TOOLS, options=options, stream=True))
    else:
        parts = [client.chat("talker", MESSAGES, tools=TOOLS, options=options)]
    calls = [call for part in parts for call in part.message.tool_calls or ()]
    assert [c.function.name for c in calls] == ["weather"]
    assert calls[0].function.arguments == {"city": "Paris"}
    assert "".join(part.message.content or "" for part in parts) == ""
    assert parts[-1].done_reason == "stop"
    answered: list[dict[str, Any]] = [
        *MESSAGES,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": calls[0].function.model_dump()}],
        },
        {"role": "tool", "tool_name": "weather", "content": "sunny"},
    ]
    again = client.chat("talker", answered, tools=TOOLS, options=exactly("Sunny"))
    assert again.message.content == "Sunny"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_generation(server: Running, stream: bool) -> None:
    """Running ones and a waiting one; the model is free soon, and answers the next request."""
    body = {"model": "talker", "messages": MESSAGES, "stream": stream, "options": ENDLESS}
    connections = [server.open("/api/chat", json.dumps(body)) for _ in range(3)]
    server.until_jobs(2, 1)
    for connection in connections:
        connection.close()
    server.until_jobs(0, 0, 5)
    answer = server.post(
        "/api/chat", model="talker", messages=MESSAGES, stream=False, options=exactly("ok")
    )
    assert answer["message"]["content"] == "ok"


def test_a_full_queue_is_a_503_in_ollamas_form(talker: Trio) -> None:
    """With Retry-After."""
    body = json.dumps({"model": "talker", "messages": MESSAGES, "options": ENDLESS})
    with serve(made("talker", talker, ctx=2048), queue=1) as server:
        connections = []
        for jobs in ((1, 0), (2, 0), (2, 1)):
            connections.append(server.open("/api/chat", body))
            server.until_jobs(*jobs)
        response = server.client.post("/api/chat", content=body)
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert set(response.json()) == {"error"}
        for connection in connections:
            connection.close()


def test_a_stream_that_the_server_ends_says_so(talker: Trio) -> None:
    """The last line is an error, not silence."""
    with serve(made("talker", talker, ctx=2048)) as server:
        body = {"model": "talker", "messages": MESSAGES, "options": ENDLESS}
        with server.client.stream("POST", "/api/chat", json=body) as response:
            lines = response.iter_lines()
            assert json.loads(next(lines))["done"] is False
            server.do(server.host.close(0))
            *_, last = lines
        assert "shutting down" in json.loads(last)["error"]


def test_a_load_that_fails_is_told_without_a_path(trio: Trio, tmp_path: Path) -> None:
    """In each API's form."""
    missing = made("missing", Trio(tmp_path / "none.gguf", trio.tuned, trio.reference))
    with serve(missing, load=False) as server:
        told = refused(server, "/api/generate", 500, model="missing", prompt="x")
        other = server.post("/v1/completions", 500, model="missing", prompt="x")
    for sentence in (told, other["error"]["message"]):
        assert "the model missing cannot be loaded: a file of it is missing or damaged" in sentence
        assert "/" not in sentence
