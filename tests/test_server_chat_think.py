"""Replies that think, over HTTP: every token is reported once, wherever its text goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

import eftlocal

from .full_server import CHAT, Json, Running, about, exact, serve
from .gguf_models import CHAT_TEMPLATE
from .thinkers import BLOCK, OPTIONS, QUESTION, Thinker, message, thinker, write


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thinker]:
    """A model, and a seed with which it thinks."""
    trio = write(tmp_path_factory.mktemp("thinker"), CHAT_TEMPLATE)
    with eftlocal.load(**trio._asdict(), threads=1) as model:
        yield thinker(trio, model, BLOCK)


@pytest.fixture(scope="module")
def server(thinking: Thinker) -> Iterator[Running]:
    """A server with it; biases as large as those are no fields of requests."""
    with serve(replace(exact(thinking.trio), generation=OPTIONS)) as running:
        yield running


def body_of(thinking: Thinker) -> Json:
    """The request for that reply, with all reports."""
    return {
        "messages": message(QUESTION),
        "seed": thinking.seed,
        "logprobs": True,
        "top_logprobs": 1,
        "alphas": True,
    }


def test_thinking_in_one_piece(server: Running, thinking: Thinker) -> None:
    """Thinking and answer apart; log-probabilities of both; thinking tokens are counted."""
    expected = thinking.reply
    answer = server.post(CHAT, **body_of(thinking))
    (choice,) = answer["choices"]
    assert choice["message"]["reasoning_content"] == expected.thinking != ""
    assert choice["message"]["content"] == expected.answer != ""
    entries = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == expected.text
    shown = [n for n, token in enumerate(expected.tokens) if token not in thinking.model.engine.eog]
    logprobs = [expected.logprobs[n] for n in shown]
    assert [entry["logprob"] for entry in entries] == about(logprobs)
    thought = answer["usage"]["completion_tokens_details"]["reasoning_tokens"]
    before = expected.text.index("</think>") + len("</think>")
    pieces = [thinking.model.token_text(token) for token in expected.tokens]
    counts = [len("".join(pieces[:n])) for n in range(1, len(pieces) + 1)]
    assert thought == 1 + sum(count < before for count in counts)


def test_thinking_in_a_stream(server: Running, thinking: Thinker) -> None:
    """Markers never come in part; reports, put together, are those of an answer in one piece."""
    body = body_of(thinking)
    (whole,) = server.post(CHAT, **body)["choices"]
    deltas: list[Json] = []
    logprobs: list[Json] = []
    tokens: list[Json] = []
    for chunk in server.stream(CHAT, **body):
        (choice,) = chunk["choices"]
        deltas.append(choice["delta"])
        logprobs += (choice["logprobs"] or {"content": []})["content"]
        tokens += choice.get("eft", {"tokens": []})["tokens"]
    for name in ("content", "reasoning_content"):
        assert "".join(delta.get(name, "") for delta in deltas) == whole["message"][name]
    assert logprobs == about(whole["logprobs"]["content"])
    assert tokens == about(whole["eft"]["tokens"])


def test_replies_without_a_block(thinking: Thinker) -> None:
    """They have no such key, and no such tokens."""
    with serve(exact(thinking.trio)) as plain:
        reply = plain.chat(max_tokens=2, temperature=0)
        assert "reasoning_content" not in reply["choices"][0]["message"]
        assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0
