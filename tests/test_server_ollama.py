"""Ollama's API, spoken by Ollama's own Python package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import ollama
import pytest

import eftlocal

from .full_server import ATLAS, Running, serve

QUESTION = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server of atlas, which the first request loads."""
    with serve(ATLAS, load=False) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[ollama.Client]:
    """Ollama's client of it."""
    with ollama.Client(server.url) as made:
        yield made


def test_chat_answers_as_the_python_api_does(
    client: ollama.Client, atlas: eftlocal.FusedModel
) -> None:
    """In one piece, with the counts and times of the answer."""
    expected = atlas.chat(MESSAGES)
    answer = client.chat("atlas", MESSAGES)
    assert answer.message.role == "assistant"
    assert answer.message.content == expected.text
    assert answer.done is True
    assert answer.done_reason == "stop"
    assert answer.model == "atlas"
    assert answer.prompt_eval_count == len(expected.prompt_tokens)
    assert answer.eval_count == len(expected.tokens)
    assert answer.created_at is not None
    assert datetime.fromisoformat(answer.created_at).tzinfo is not None
    assert answer.total_duration is not None
    assert answer.eval_duration is not None
    assert answer.prompt_eval_duration is not None
    assert answer.load_duration is not None
    parts = answer.eval_duration + answer.prompt_eval_duration + answer.load_duration
    assert 0 < parts <= answer.total_duration


def test_a_stream_is_the_same_in_pieces(client: ollama.Client, server: Running) -> None:
    """Several lines, only the last of which is done; streaming is what happens by default."""
    whole = client.chat("atlas:latest", MESSAGES)
    parts = list(client.chat("atlas:latest", MESSAGES, stream=True))
    assert len(parts) > 2
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count == whole.eval_count
    response = server.client.post("/api/chat", json={"model": "atlas", "messages": MESSAGES})
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert len(lines) > 2
    assert "".join(line["message"]["content"] for line in lines) == whole.message.content


def test_generate_uses_the_template_and_raw_does_not(
    client: ollama.Client, atlas: eftlocal.FusedModel
) -> None:
    """With a system text, too."""
    assert client.generate("atlas", QUESTION).response == atlas.chat(MESSAGES).text
    system = "Answer in one word."
    messages = [{"role": "system", "content": system}, *MESSAGES]
    answer = client.generate("atlas", QUESTION, system=system)
    assert answer.response == atlas.chat(messages).text
    raw = client.generate("atlas", "The capital of France is", raw=True, options={"num_predict": 6})
    assert raw.response == atlas.complete("The capital of France is", max_tokens=6).text
    assert raw.done_reason == "length"
    assert raw.context is None
    parts = client.generate("atlas", QUESTION, stream=True)
    assert "".join(part.response or "" for part in parts) == atlas.chat(MESSAGES).text


def test_context_goes_on_with_the_conversation(
    client: ollama.Client, atlas: eftlocal.FusedModel
) -> None:
    """What an answer gives as its context is the conversation so far."""
    first = client.generate("atlas", QUESTION)
    second = client.generate("atlas", "Yes, please.", context=first.context)
    messages: list[dict[str, Any]] = [
        *MESSAGES,
        {"role": "assistant", "content": first.response},
        {"role": "user", "content": "Yes, please."},
    ]
    expected = atlas.chat(messages)
    assert second.prompt_eval_count == len(expected.prompt_tokens)
    assert second.response == expected.text
    for context in ([1, 2, 3], [300], [-1], [91, 49, 93]):
        with pytest.raises(ollama.ResponseError, match="context is not one") as caught:
            client.generate("atlas", "Hi", context=context)
        assert caught.value.status_code == 400


def test_options_mean_what_they_mean_elsewhere(
    client: ollama.Client, atlas: eftlocal.FusedModel
) -> None:
    """Ollama's names, and those of fusion."""
    options: dict[str, Any] = {"temperature": 1.0, "seed": 7, "top_k": 40, "top_p": 0.9}
    answer = client.chat(
        "atlas", MESSAGES, options={**options, "repeat_penalty": 1.2, "num_predict": 9}
    )
    expected = atlas.chat(MESSAGES, **options, repetition_penalty=1.2, max_tokens=9)
    assert answer.message.content == expected.text
    assert answer.eval_count == len(expected.tokens) == 9
    plain = client.chat("atlas", MESSAGES, options={"alpha": 0.0, "draft": "off", "num_predict": 9})  # type: ignore[typeddict-unknown-key, unused-ignore]
    assert plain.message.content == atlas.chat(MESSAGES, alpha=0.0, max_tokens=9).text
    cut = client.chat("atlas", MESSAGES, options={"stop": ["Paris"]})
    assert cut.message.content == "The capital of France is "
    for unlimited in (-1, -2, 0):
        answer = client.chat("atlas", MESSAGES, options={"num_predict": unlimited})
        assert answer.done_reason == "stop"


def test_every_request_draws_its_own_seed(client: ollama.Client) -> None:
    """Without a seed, and with one below 0."""
    for seed in ({}, {"seed": -1}):
        options: dict[str, Any] = {"temperature": 3.0, "num_predict": 12, **seed}
        texts = {client.chat("atlas", MESSAGES, options=options).message.content for _ in range(4)}
        assert len(texts) > 1


def test_formats_are_kept(client: ollama.Client) -> None:
    """Any JSON object, or one of a schema."""
    free = client.chat("atlas", MESSAGES, format="json", options={"num_predict": 200})
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = client.chat("atlas", MESSAGES, format=schema)
    assert json.loads(answer.message.content or "") in ({"city": "Paris"}, {"city": "Rome"})
    if free.done_reason == "stop":
        assert isinstance(json.loads(free.message.content or ""), dict)


def test_log_probabilities_and_alphas_are_reported(
    server: Running, client: ollama.Client, atlas: eftlocal.FusedModel
) -> None:
    """The same in a stream as in one piece."""
    body: dict[str, Any] = {
        "model": "atlas",
        "messages": MESSAGES,
        "logprobs": True,
        "top_logprobs": 2,
        "options": {"alphas": True, "num_predict": 5},
    }
    whole = server.post("/api/chat", stream=False, **body)
    expected = atlas.chat(MESSAGES, max_tokens=5)
    found = [entry["logprob"] for entry in whole["logprobs"]]
    assert found == pytest.approx(expected.logprobs, abs=0.02)
    assert all(len(entry["top_logprobs"]) == 2 for entry in whole["logprobs"])
    assert [entry["token"] for entry in whole["eft"]["tokens"]] == list(expected.tokens)
    parts = list(
        client.chat("atlas", MESSAGES, stream=True, logprobs=True, options={"num_predict": 5})
    )
    streamed = [entry.token for part in parts for entry in part.logprobs or ()]
    assert streamed == [entry["token"] for entry in whole["logprobs"]]


def test_models_are_listed_and_shown(client: ollama.Client) -> None:
    """With what the base's file says."""
    (model,) = client.list().models
    assert model.model == "atlas"
    assert (model.size or 0) > 1_000_000
    assert model.details is not None
    assert model.details.family == "llama"
    assert model.details.quantization_level == "Q8_0"
    assert model.details.parameter_size == "3.0M"
    assert model.digest is not None
    assert len(model.digest) == 64
    shown = client.show("atlas:latest")
    assert shown.modified_at == model.modified_at
    assert shown.capabilities == ["completion"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.modelinfo["llama.context_length"] == 1024
    assert shown.modelinfo["eftlocal.tuned"] == "small-chat.gguf"
    assert "<|assistant|>" in (shown.template or "")
    assert "temperature" in (shown.parameters or "")


def test_models_are_loaded_kept_and_unloaded(client: ollama.Client, server: Running) -> None:
    """By requests without a prompt, as Ollama's own program does it."""
    assert client.generate("atlas", keep_alive=0).done_reason == "unload"
    server.until(lambda: not client.ps().models)
    assert client.generate("atlas").done_reason == "load"
    (model,) = client.ps().models
    assert model.name == "atlas"
    assert model.expires_at is not None
    assert model.expires_at.year > 3000
    assert model.context_length == 1024
    assert (model.size or 0) > 10_000_000
    assert model.size_vram == 0
    assert client.chat("atlas", keep_alive="1h30m").done_reason == "load"
    (model,) = client.ps().models
    assert model.expires_at is not None
    left = model.expires_at - datetime.now(model.expires_at.tzinfo)
    assert 5390 < left.total_seconds() <= 5400
    client.chat("atlas", MESSAGES, keep_alive=0)
    server.until(lambda: not client.ps().models)
    assert client.chat("atlas", keep_alive=0).done_reason == "unload"


def test_a_server_is_there(server: Running) -> None:
    """Words that clients look for, for HEAD as well; a version that they do not refuse."""
    assert "Ollama is running" in server.client.get("/").text
    head = server.client.head("/")
    assert head.status_code == 200
    assert head.content == b""
    version = server.get("/api/version")
    assert version["eftlocal"] == eftlocal.__version__
    assert [int(part) >= 0 for part in version["version"].split(".")] == [True] * 3
