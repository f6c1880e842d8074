"""What would hurt a careless server: each is a 4xx with one sentence, and the server lives on."""

from __future__ import annotations

import json

import httpx
import pytest

from .full_server import CHAT, FRANCE, Running

DEPTH = 60_000
NESTED = '{"type":"array","items":' * DEPTH + "{}" + "}" * DEPTH
START = '{"messages":[{"role":"user","content":"Hi"}],"max_tokens":4,'
HOSTILE = {
    "deep schema": (400, START + f'"json_schema":{NESTED}}}'),
    "deep schema as a text": (400, START + f'"json_schema":{json.dumps(NESTED)}}}'),
    "deep response format": (
        400,
        START + '"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":'
        f"{NESTED}}}}}}}",
    ),
    "megabytes of lists": (400, "{" + START[1:] + '"metadata":[' + "[]," * 10**6 + "[]]}"),
    "deep body": (400, "[" * DEPTH),
    "regex of repeats": (400, START + '"regex":"(a{1,1000}){1,1000}"}'),
    "regex of stars": (400, START + f'"regex":"{"(a|a)*" * 500}"}}'),
    "regex of stars, as a stream": (400, START + f'"stream":true,"regex":"{"(a|a)*" * 5000}"}}'),
    "huge bounds": (400, START + '"json_schema":{"type":"string","minLength":1000000000}}'),
    "many stop strings": (400, START + f'"stop":{json.dumps([str(i) for i in range(1000)])}}}'),
    "many choices": (400, START + '"n":1000000000}'),
    "not a number": (400, START + '"temperature":NaN}'),
    "infinite": (400, START + '"alpha":1e999}'),
    "a number of 5,000 digits": (400, START + f'"seed":{"9" * 5000}}}'),
    "wrong type": (400, START + '"temperature":"hot"}'),
    "unknown model": (404, START + '"model":"gpt-9"}'),
    "no such field": (400, START + '"alpah":1}'),
    "twice the same field": (400, START + '"seed":1,"seed":2}'),
    "context overflow": (
        400,
        json.dumps({"messages": [{"role": "user", "content": "a " * 10**6}]}),
    ),
    "too large": (413, " " * (9 << 20)),
}


@pytest.mark.parametrize(("status", "body"), HOSTILE.values(), ids=HOSTILE)
def test_one_sentence(server: Running, status: int, body: str) -> None:
    """An error object of OpenAI's form; a good request is answered afterwards."""
    answer = httpx.post(f"{server.url}{CHAT}", content=body, timeout=60)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert 0 < len(error["message"]) < 300
    assert "\n" not in error["message"]
    reply = server.post(CHAT, messages=FRANCE)
    assert "Paris" in reply["choices"][0]["message"]["content"]
