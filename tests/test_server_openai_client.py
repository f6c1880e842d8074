"""The real `openai` package against the server: sync, async, streams, strict validation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from .full_server import Running

MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]


@pytest.fixture
def client(server: Running) -> Iterator[openai.OpenAI]:
    """A client that accepts nothing that its types do not describe."""
    with openai.OpenAI(
        base_url=f"{server.url}/v1",
        api_key="none",
        max_retries=0,
        _strict_response_validation=True,
    ) as made:
        yield made


def test_models(client: openai.OpenAI) -> None:
    """The list and one of it."""
    assert [model.id for model in client.models.list()] == ["atlas"]
    assert client.models.retrieve("atlas").owned_by == "eftlocal"
    with pytest.raises(openai.NotFoundError, match="nix"):
        client.models.retrieve("nix")


def test_chat(client: openai.OpenAI) -> None:
    """With EFT's options as an extra body, log-probabilities, usage, and the key eft."""
    reply = client.chat.completions.create(
        model="atlas",
        messages=MESSAGES,
        logprobs=True,
        top_logprobs=2,
        n=2,
        extra_body={"alpha": "dynamic", "draft": 4, "alphas": True},
    )
    assert len(reply.choices) == 2
    choice = reply.choices[0]
    assert choice.message.content and "Paris" in choice.message.content
    assert choice.logprobs and choice.logprobs.content
    assert len(choice.logprobs.content[0].top_logprobs) == 2
    assert choice.model_extra and choice.model_extra["eft"]["tokens"][0]["alpha"]
    assert reply.usage and reply.usage.prompt_tokens_details
    assert reply.system_fingerprint and reply.system_fingerprint.startswith("eft-")


def test_chat_stream(client: openai.OpenAI) -> None:
    """Chunks, and the package's own way to put them together."""
    chunks = list(
        client.chat.completions.create(
            model="atlas", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "Paris" in text
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens > 3
    with client.chat.completions.stream(model="atlas", messages=MESSAGES, logprobs=True) as stream:
        whole = stream.get_final_completion()
    assert whole.choices[0].message.content == text
    assert whole.choices[0].finish_reason == "stop"
    assert whole.choices[0].logprobs and whole.choices[0].logprobs.content
    assert "".join(entry.token for entry in whole.choices[0].logprobs.content) == text


def test_completions(server: Running, client: openai.OpenAI) -> None:
    """In one piece, and as a stream.

    The package's types do not know that a chunk has no finish_reason yet, which OpenAI's own
    streams of completions have none of either.
    """
    prompt = "The capital of France is"
    reply = client.completions.create(model="atlas", prompt=prompt, max_tokens=6, logprobs=2)
    choice = reply.choices[0]
    assert "Paris" in choice.text and choice.finish_reason == "length"
    assert choice.logprobs and choice.logprobs.tokens and len(choice.logprobs.tokens) == 6
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as lax:
        stream = lax.completions.create(model="atlas", prompt=prompt, max_tokens=6, stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream) == choice.text


def test_errors(client: openai.OpenAI) -> None:
    """The package's exceptions, with our sentences."""
    with pytest.raises(openai.BadRequestError, match="did you mean alpha") as caught:
        client.chat.completions.create(model="atlas", messages=MESSAGES, extra_body={"alhpa": 1})
    assert caught.value.param == "alhpa"
    with pytest.raises(openai.BadRequestError) as full:
        client.completions.create(model="atlas", prompt="word " * 3000)
    assert full.value.code == "context_length_exceeded"
    with pytest.raises(openai.InternalServerError, match="embeddings"):
        client.embeddings.create(model="atlas", input="x")


def test_async(server: Running) -> None:
    """Many requests at once, some of them streams, one of them left early."""

    async def ask(client: openai.AsyncOpenAI, number: int) -> str:
        if number % 2:
            reply = await client.chat.completions.create(model="atlas", messages=MESSAGES)
            return reply.choices[0].message.content or ""
        stream = await client.chat.completions.create(model="atlas", messages=MESSAGES, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", _strict_response_validation=True
        ) as client:
            left = await client.chat.completions.create(
                model="atlas", messages=MESSAGES, stream=True, logit_bias={"2": -100, "6": -100}
            )
            async with left:
                async for _ in left:
                    break
            return await asyncio.gather(*(ask(client, number) for number in range(8)))

    texts = asyncio.run(ask_all())
    assert all("Paris" in text for text in texts)
    server.until_jobs(0, 0, 2.0)
