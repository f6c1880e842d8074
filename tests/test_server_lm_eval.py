"""lm-evaluation-harness against the server: its requests replayed, and itself where installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import eftlocal

from .full_server import ATLAS, CHAT, COMPLETIONS, Running, serve
from .lm_eval_tasks import (
    COUNT,
    Item,
    items,
    read_scores,
    run_in_process,
    scoring_request,
    write_tasks,
)

HAS_LM_EVAL = importlib.util.find_spec("lm_eval") is not None
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server with atlas."""
    # In caches of their own, sequences do not change each other's rounding.
    with serve(replace(ATLAS, runtime={**ATLAS.runtime, "kv_unified": "off"})) as running:
        yield running


def python_score(model: eftlocal.FusedModel, text: str, answer: str) -> tuple[float, bool]:
    """Log-probability of an answer after a text, and whether every token is the likeliest."""
    tokens = model.tokenize(text + answer)
    start = len(model.tokenize(text))
    events = model.score(tokens, top_logprobs=1)[start - 1 :]
    is_greedy = all(event.top[0][0] == event.token for event in events)
    return sum(event.logprob for event in events), is_greedy


def test_its_scoring_requests(server: Running, atlas: eftlocal.FusedModel) -> None:
    """Lists of ids, echo, one token more, greedy by equality of floats; one request for several."""
    some = [item for item in items(300) if len(item["question"]) > 30][:6]
    pairs = [(f"{i['question']}\nAnswer:", f" {choice}") for i in some for choice in i["choices"]]
    expected = [python_score(atlas, *pair) for pair in pairs]
    for size in (1, 5):
        found: list[tuple[float, bool]] = []
        for first in range(0, len(pairs), size):
            part = pairs[first : first + size]
            prompts, starts = [], []
            for text, ending in part:
                body: Item = {"prompt": text, "add_special_tokens": False}
                starts.append(len(server.post("/tokenize", **body)["tokens"]))
                body["prompt"] = text + ending
                prompts.append(server.post("/tokenize", **body)["tokens"])
            answer = server.post(COMPLETIONS, **scoring_request(prompts))
            for choice, prompt in zip(answer["choices"], prompts, strict=True):
                report = choice["logprobs"]
                assert len(report["token_logprobs"]) == len(report["tokens"]) == len(prompt) + 1
            found += read_scores(answer, starts)
        for (logprob, greedy), (right, is_greedy) in zip(found, expected, strict=True):
            assert logprob == pytest.approx(right, abs=TOLERANCE)
            assert greedy == is_greedy
    assert any(greedy for _, greedy in expected) and not all(greedy for _, greedy in expected)


def test_an_end_token_is_an_entry(server: Running) -> None:
    """The one generated token counts even where it ends the text."""
    prompt = server.post("/apply-template", messages=[{"role": "user", "content": "Hi"}])["prompt"]
    reply = server.post(CHAT, messages=[{"role": "user", "content": "Hi"}])
    text = prompt + reply["choices"][0]["message"]["content"]
    tokens = server.post("/tokenize", content=text)["tokens"]
    (choice,) = server.post(COMPLETIONS, **scoring_request([tokens]))["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["logprobs"]["tokens"][-1] == "<|end|>"
    assert len(choice["logprobs"]["token_logprobs"]) == len(tokens) + 1


def test_its_generation_requests(server: Running, atlas: eftlocal.FusedModel) -> None:
    """As `generate_until` sends them, to both routes."""
    question = "What is the capital of France?"
    rest: Item = {"model": "atlas", "max_tokens": 40, "temperature": 0, "seed": 1234}
    stop = ["\n\n", "<|end|>"]
    answer = server.post(CHAT, messages=[{"role": "user", "content": question}], stop=stop, **rest)
    expected = atlas.chat([{"role": "user", "content": question}], stop=["\n\n"])
    assert answer["choices"][0]["message"]["content"] == expected.text
    ids = atlas.tokenize(question)
    answer = server.post(COMPLETIONS, prompt=[ids, ids], stop=stop, **rest)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["choices"][0]["text"] == atlas.complete(ids, stop=["\n\n"], max_tokens=40).text


@pytest.fixture(scope="module")
def expected(atlas: eftlocal.FusedModel) -> dict[tuple[str, str], tuple[float, bool]]:
    """What the Python API says of every pair that the harness asks for, once for all tests."""
    pairs = [(f"{i['question']}\nAnswer:", f" {c}") for i in items(COUNT) for c in i["choices"]]
    return {pair: python_score(atlas, *pair) for pair in pairs}


@pytest.mark.skipif(not HAS_LM_EVAL, reason="needs lm-eval[api]")
@pytest.mark.parametrize(
    ("concurrent", "size"), [(1, 1), (1, 4), (4, 2)], ids=["one", "batches", "at-once"]
)
def test_local_completions(
    server: Running,
    expected: dict[tuple[str, str], tuple[float, bool]],
    tmp_path: Path,
    concurrent: int,
    size: int,
) -> None:
    """Every log-likelihood is that of the Python API, also of requests at once.

    `test_evaluate_tasks.py` runs the same task by the harness's own command.
    """
    write_tasks(tmp_path, COUNT)
    arguments: Item = {"model": "atlas", "base_url": f"{server.url}{COMPLETIONS}"}
    arguments |= {"num_concurrent": concurrent, "batch_size": size, "tokenizer_backend": "auto"}
    samples = run_in_process(tmp_path, "atlas_choice", "local-completions", arguments)
    asked = [pair for sample in samples for pair in sample["arguments"]]
    assert len(samples) == COUNT and set(asked) == expected.keys()
    found = [answer for sample in samples for answer in sample["filtered_resps"]]
    worst = 0.0
    for pair, (logprob, greedy) in zip(asked, found, strict=True):
        right, is_greedy = expected[pair]
        worst = max(worst, abs(logprob - right))
        assert greedy == is_greedy
    print(f"{concurrent} at once, batches of {size}: largest difference {worst:.2e}")
    assert worst <= TOLERANCE


@pytest.mark.skipif(not HAS_LM_EVAL, reason="needs lm-eval[api]")
def test_local_chat_completions(
    server: Running, atlas: eftlocal.FusedModel, tmp_path: Path
) -> None:
    """Replies are those of the Python API."""
    write_tasks(tmp_path, 20)
    arguments: Item = {"model": "atlas", "base_url": f"{server.url}{CHAT}"}
    samples = run_in_process(
        tmp_path, "atlas_chat", "local-chat-completions", arguments, apply_chat_template=True
    )
    assert len(samples) == 20
    same = 0
    for sample in samples:
        message = {"role": "user", "content": sample["doc"]["question"]}
        expected = atlas.chat([message], max_tokens=40, stop=["\n\n"])
        same += sample["resps"][0][0] == expected.text
    assert same >= 19  # one near-tie may go the other way with another cache
