"""/v1/chat/completions in one piece: what it says, reports and refuses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

import eftlocal
from eftlocal.options import GenerationOptions, option_name
from eftlocal.server.openai.body import names_of
from eftlocal.server.openai.schemas import ChatRequest, CompletionRequest

from .conftest import Trio
from .full_server import CHAT, COMPLETIONS, FRANCE, Running, about


@pytest.fixture(scope="module")
def exact_model(trio: Trio) -> Iterator[eftlocal.FusedModel]:
    """The same models in Python."""
    with eftlocal.load(**trio._asdict(), threads=1) as loaded:
        yield loaded


def test_the_answer_is_that_of_the_python_api(server: Running, atlas: eftlocal.FusedModel) -> None:
    """Text, ending and counts; fields as OpenAI names them."""
    answer = server.chat()
    expected = atlas.chat(FRANCE)
    choice = answer["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": expected.text, "refusal": None}
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    usage = answer["usage"]
    assert usage["prompt_tokens"] == len(expected.prompt_tokens)
    assert usage["completion_tokens"] == len(expected.tokens)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert answer["object"] == "chat.completion" and answer["model"] == "atlas"
    assert answer["id"].startswith("chatcmpl-") and answer["created"] > 1.7e9


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_ends_with_length(server: Running, name: str) -> None:
    """Both names of the limit."""
    answer = server.chat(**{name: 3})
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def test_eft_options_are_fields(exact_server: Running, exact_model: eftlocal.FusedModel) -> None:
    """Every option of Python is a field under its name outside Python, and has an effect."""
    for body in (ChatRequest, CompletionRequest):
        missing = {option_name(name) for name in GenerationOptions.__slots__} - set(names_of(body))
        assert missing <= {"top_logprobs"}
    options: dict[str, Any] = {"alpha": 0.0, "temperature": 1.5, "seed": 5, "max_tokens": 12}
    more = {"draft": 4, "accept": "rejection", "top_k": 40, "repetition_penalty": 1.1}
    answer = exact_server.chat(**options, **more)
    assert (
        answer["choices"][0]["message"]["content"]
        == exact_model.chat(FRANCE, **options, **more).text
    )
    assert answer["eft"] == {"seed": 5}


def test_seeds(exact_server: Running) -> None:
    """Without a seed every request draws its own, and says which; with it the text comes again."""
    settings = {"temperature": 3.0, "max_tokens": 12}
    answers = [exact_server.chat(**settings) for _ in range(3)]
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert len(set(texts)) == 3
    again = exact_server.chat(**settings, seed=answers[1]["eft"]["seed"])
    assert again["choices"][0]["message"]["content"] == texts[1]
    assert "eft" not in exact_server.chat(temperature=0, max_tokens=1)
    negative = [
        exact_server.chat(**settings, seed=seed)["choices"][0]["message"]
        for seed in (-1, -1, 2**64 - 1)
    ]
    assert negative[0] == negative[1] == negative[2]


def test_choices_are_those_of_the_python_api(
    exact_server: Running, exact_model: eftlocal.FusedModel
) -> None:
    """Five choices, more than there are sequences: in order, each its own text, usage of all."""
    settings: dict[str, Any] = {"temperature": 1.5, "seed": 3, "max_tokens": 10}
    answer = exact_server.chat(n=5, **settings)
    choices = answer["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3, 4]
    prepared = exact_model.prepare_chat(FRANCE, **settings)
    for choice in choices:
        stream = exact_model.start(prepared.with_choice(choice["index"]))
        assert [event.token for event in stream]
        assert choice["message"]["content"] == stream.completion.text
    assert len({choice["message"]["content"] for choice in choices}) > 2
    usage = answer["usage"]
    assert usage["prompt_tokens"] == exact_server.chat(max_tokens=1)["usage"]["prompt_tokens"]
    assert 10 < usage["completion_tokens"] <= 50


def test_logprobs_cover_the_content(server: Running, atlas: eftlocal.FusedModel) -> None:
    """One entry for each token of the content, as OpenAI's API: end tokens have none."""
    choice = server.chat(logprobs=True, top_logprobs=3)["choices"][0]
    expected = atlas.chat(FRANCE, top_logprobs=3)
    content = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == choice["message"]["content"]
    assert [entry["logprob"] for entry in content] == about(expected.logprobs[:-1])
    for entry in content:
        assert bytes(entry["bytes"]).decode() == entry["token"]
        top = entry["top_logprobs"]
        assert len(top) == 3 and top[0]["logprob"] == entry["logprob"]
        assert top[0]["logprob"] >= top[1]["logprob"] >= top[2]["logprob"]
    assert all(not e["top_logprobs"] for e in _content(server.chat(logprobs=True)))


def _content(answer: dict[str, Any]) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = answer["choices"][0]["logprobs"]["content"]
    return content


@pytest.mark.parametrize("stop", ["al of Fran", " of Fran"])
def test_logprobs_of_a_stop_string(server: Running, stop: str) -> None:
    """Tokens that lie in the text come; those of the stop string do not.

    The first one ends a token and has two whole ones; the second one begins with a token.
    """
    whole = server.chat(logprobs=True)
    text = whole["choices"][0]["message"]["content"]
    cut = server.chat(logprobs=True, stop=[stop], alphas=True)
    choice = cut["choices"][0]
    kept = choice["message"]["content"]
    assert kept == text[: text.index(stop)] and choice["finish_reason"] == "stop"
    entries = _content(cut)
    assert entries == about(_content(whole)[: len(entries)])
    joined = "".join(entry["token"] for entry in entries)
    assert joined.startswith(kept) and not joined[: -len(entries[-1]["token"])].startswith(kept)
    # What was generated is all under the extension key.
    assert len(choice["eft"]["tokens"]) == cut["usage"]["completion_tokens"] > len(entries)


def test_alphas_and_traces(server: Running, atlas: eftlocal.FusedModel) -> None:
    """The key eft of a choice has every token, with traces under the names of trace files."""
    expected = atlas.chat(FRANCE, trace=True, max_tokens=6)
    tokens = server.chat(alphas=True, max_tokens=6)["choices"][0]["eft"]["tokens"]
    assert [entry["token"] for entry in tokens] == list(expected.tokens)
    assert [entry["alpha"] for entry in tokens] == about(expected.alphas)
    assert set(tokens[0]) == {"index", "token", "text", "logprob", "alpha", "from_draft"}
    traced = server.chat(trace=True, max_tokens=6)["choices"][0]["eft"]["tokens"]
    for entry, trace in zip(traced, expected.traces, strict=True):
        assert entry["trace"]["total_variation"] == about(trace.total_variation)
        assert entry["trace"]["fused"]["top"] == trace.fused.top
        assert entry["trace"]["origin"] == trace.origin
    named = [token for entry in traced for token in entry["pieces"]]
    assert len(named) == len(set(named)) > len(traced)
    assert traced[0]["pieces"][str(expected.tokens[0])] == atlas.token_text(expected.tokens[0])
    assert "eft" not in server.chat(max_tokens=2)["choices"][0]


def test_usage_knows_caches_and_drafts(server: Running) -> None:
    """A prompt that was read before is cached; accepted and rejected drafts are counted."""
    server.chat(max_tokens=1)
    answer = server.chat(draft=8, max_tokens=12)
    usage, timings = answer["usage"], answer["timings"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert cached == timings["cache_n"] == usage["prompt_tokens"] - 1 == answer_total(timings) - 1
    details = usage["completion_tokens_details"]
    assert details["accepted_prediction_tokens"] == timings["draft_n_accepted"] > 0
    drafted = details["accepted_prediction_tokens"] + details["rejected_prediction_tokens"]
    assert drafted == timings["draft_n"]
    assert timings["predicted_n"] == 12 and timings["predicted_per_second"] > 0
    assert all(math.isfinite(value) for value in timings.values())


def answer_total(timings: dict[str, float]) -> float:
    """Prompt tokens, cached or read."""
    return timings["cache_n"] + timings["prompt_n"]


def test_fields_without_a_meaning_here_are_accepted(server: Running) -> None:
    """What OpenAI's clients send of themselves; null is a field that is not given."""
    server.chat(
        user="me", store=False, metadata={"a": "b"}, service_tier="auto", parallel_tool_calls=True,
        reasoning_effort="low", n=None, stop=None, seed=None, temperature=None, logit_bias=None,
        tools=None, response_format={"type": "text"}, modalities=["text"], max_tokens=1,
        stream_options=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"alfa": 1}, "alfa", "did you mean alpha?"),
        ({"repeat_penalty": 1.1}, "repeat_penalty", "did you mean repetition_penalty?"),
        ({"alpha": "1.0"}, "alpha", "a number"),
        ({"temperature": True}, "temperature", "a number"),
        ({"temperature": 101}, "temperature", "0 (greedy) to 100"),
        ({"top_p": 0}, "top_p", "above 0"),
        ({"n": 0}, "n", "1 or more"),
        ({"n": 257}, "n", "at most 256"),
        ({"max_tokens": 0}, "max_tokens", "1 or more"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "differ"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "at most 20"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs = true"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "token ids from 0 to 2047"),
        ({"logit_bias": {"2048": 1}}, "logit_bias", "token ids from 0 to 2047"),
        ({"stop": ["x"] * 17}, "stop", "16"),
        ({"stop": "x" * 1001}, "stop", "1000"),
        ({"weight": {"nobody": 1}}, "weight", "experts"),
        ({"modalities": ["text", "audio"]}, "modalities", "text only"),
        ({"functions": []}, "functions", "use tools"),
        ({"messages": []}, "messages", "1 or more items"),
        ({"messages": "hello"}, "messages", "a list"),
        ({"stream_options": {"usage": True}}, "usage", "include_usage"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence(
    server: Running, fields: dict[str, Any], param: str, says: str
) -> None:
    """A 400 that names the field."""
    error = server.refused(CHAT, **{"messages": FRANCE, **fields})
    assert error["param"] == param
    assert says in error["message"] and "\n" not in error["message"]


def test_messages_that_no_text_model_reads(server: Running) -> None:
    """An image is refused where it stands."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    error = server.refused(CHAT, messages=[{"role": "user", "content": [image]}])
    assert "images" in error["message"]


def test_a_prompt_that_does_not_fit(server: Running) -> None:
    """OpenAI's code for it, on both routes."""
    long = "word " * 3000
    error = server.refused(CHAT, messages=[{"role": "user", "content": long}])
    assert error["code"] == "context_length_exceeded"
    assert server.refused(COMPLETIONS, prompt=long)["code"] == "context_length_exceeded"


def test_models(server: Running) -> None:
    """The list, one of it, and names that are not in it."""
    listed = server.client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [entry["id"] for entry in listed["data"]] == ["atlas"]
    one = server.client.get("/v1/models/atlas").json()
    assert one == listed["data"][0] and one["object"] == "model"
    for response in (
        server.client.get("/v1/models/gpt-4o"),
        server.client.post(CHAT, json={"messages": FRANCE, "model": "gpt-4o"}),
    ):
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"
    assert server.client.post("/v1/embeddings", json={}).status_code == 501


def test_paths_without_v1(server: Running) -> None:
    """llama-server has them, too."""
    assert server.post("/chat/completions", messages=FRANCE, max_tokens=1)["choices"]
    assert server.post("/completions", prompt="The", max_tokens=1)["choices"]
    assert server.client.get("/models").json()["data"]
