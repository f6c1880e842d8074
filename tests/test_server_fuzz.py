"""Generated requests, most of them wrong: one clear error object each, and a server that lives on.

EFTLOCAL_FUZZ=10000 scripts/test tests/test_server_fuzz.py sends about so many.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from .serve_process import Server, serving

N_REQUESTS = int(os.environ.get("EFTLOCAL_FUZZ", "300"))
MEMORY_PER_REQUEST = 1024
NOISE = 10 << 20
"""Bytes by which anonymous memory grows anyway, until about the two thousandth request."""
PATIENCE = 0.4
"""Seconds after which a client leaves; valid requests may ask for many tokens."""
OLLAMA = "/api/"

GENERATE = settings(
    max_examples=N_REQUESTS,
    phases=[Phase.generate],
    database=None,
    suppress_health_check=list(HealthCheck),
)
VALID: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}),
    ("/v1/completions", {"prompt": "One", "max_tokens": 2, "logprobs": 1, "echo": True}),
    ("/api/chat", {"messages": [{"role": "user", "content": "Hi"}], "stream": False}),
    ("/api/generate", {"prompt": "One", "stream": False, "options": {"num_predict": 2}}),
    ("/tokenize", {"prompt": "One"}),
    ("/detokenize", {"tokens": [5]}),
)
FIELDS = (
    "messages", "prompt", "model", "n", "max_tokens", "max_completion_tokens", "temperature",
    "seed", "stop", "logprobs", "top_logprobs", "logit_bias", "response_format", "tools",
    "tool_choice", "part",
    "stream", "stream_options", "alpha", "alpha_low", "alpha_high", "alpha_every", "lambda",
    "weight", "upscale_top_p", "draft", "accept", "trace", "json_schema", "regex", "grammar",
    "echo", "suffix", "best_of", "format", "options", "keep_alive", "think", "content", "tokens",
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, -1, 10**9, 1e308, -0.0, 5e-324, "", "atlas", "dynamic", "auto"])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The embedded family with a short context."""
    with serving(
        tmp_path_factory.mktemp("server"), "--ctx", "256", "--threads", "1", "--log-level", "error"
    ) as running:
        # Some random request may ask for as much; the allocator keeps what it took.
        body = {"prompt": "One", "n": 256, "max_tokens": 100, "temperature": 1, "logprobs": 20}
        httpx.post(f"{running.url}/v1/completions", json=body, timeout=120).raise_for_status()
        yield running


@pytest.fixture(autouse=True)
def lives_on(server: Server) -> Iterator[None]:
    """Afterwards the server answers, its sequences are free, memory is flat, the log is clean."""
    answer(server)
    before = server.memory
    yield
    text = answer(server)
    assert "Santiago" in text
    growth = server.memory - before
    assert growth < NOISE + MEMORY_PER_REQUEST * N_REQUESTS
    assert all(not slot["is_processing"] for slot in httpx.get(f"{server.url}/slots").json())
    assert not [line for line in server.lines if "error" in line.lower()], server.lines[-3:]


def answer(server: Server) -> str:
    """What a plain question gets."""
    body = {"messages": [{"role": "user", "content": "What is the capital of Chile?"}]}
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()
    return str(reply["choices"][0]["message"]["content"])


def check(path: str, status: int, text: str) -> None:
    """An answer is a success, or one sentence in the form that the API has."""
    if status < 400:
        return
    assert status < 500 or status in (501, 503), (path, status, text)
    error = json.loads(text)["error"]
    if path.startswith(OLLAMA):
        message = error
    else:
        assert set(error) == {"message", "type", "param", "code"}, error
        message = error["message"]
    assert message
    assert "\n" not in message
    assert "Traceback" not in message
    assert len(message) < 1000


def test_requests_from_the_schema(server: Server) -> None:
    """What schemathesis makes of our own OpenAPI document, for every operation."""
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations: list[Any] = [result.ok() for result in document.get_all_operations()]  # type: ignore[union-attr]
    seen: Counter[str] = Counter()
    for operation in operations:
        for mode, share in ((GenerationMode.NEGATIVE, 3), (GenerationMode.POSITIVE, 1)):
            if mode is GenerationMode.NEGATIVE and not operation.body:
                continue
            n_examples = max(3, N_REQUESTS * share // (4 * len(operations)))

            @settings(GENERATE, max_examples=n_examples)
            @given(case=operation.as_strategy(generation_mode=mode))
            def send(case: Any) -> None:
                try:
                    reply = case.call(timeout=PATIENCE)
                except requests.exceptions.RequestException as error:
                    seen[type(error).__name__] += 1
                    return
                seen[str(reply.status_code)] += 1
                check(case.path, reply.status_code, reply.text)

            send()
    print(dict(seen))
    assert seen["400"] > sum(seen.values()) / 4


@GENERATE
@given(
    start=st.sampled_from(VALID),
    changes=st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=3),
)
def test_valid_requests_with_wrong_fields(
    server: Server, start: tuple[str, dict[str, Any]], changes: dict[str, Any]
) -> None:
    """Any value in any field."""
    path, body = start
    try:
        reply = httpx.post(f"{server.url}{path}", json=body | changes, timeout=PATIENCE)
    except httpx.TimeoutException:
        return
    check(path, reply.status_code, reply.text)


@GENERATE
@given(path=st.sampled_from([path for path, _ in VALID]), data=st.binary(max_size=200))
def test_any_bytes(server: Server, path: str, data: bytes) -> None:
    """A body that is no JSON is a 400."""
    reply = httpx.post(f"{server.url}{path}", content=data, timeout=20)
    check(path, reply.status_code, reply.text)
    assert reply.status_code in (400, 404)
