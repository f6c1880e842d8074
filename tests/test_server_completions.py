"""/v1/completions: texts, token ids, echo, and the older form of log-probabilities."""

from __future__ import annotations

import math
from typing import Any

import pytest

import eftlocal
from eftlocal.generation import TokenEvent
from eftlocal.server.openai.logprobs import legacy_logprobs
from eftlocal.server.openai.pieces import Pieces, Placed

from .full_server import COMPLETIONS, Json, Running, about

CHILE = "The capital of Chile is"


def complete(server: Running, prompt: object, **fields: Any) -> list[Json]:
    """The choices of a completion."""
    choices: list[Json] = server.post(COMPLETIONS, prompt=prompt, **fields)["choices"]
    return choices


def test_a_text_goes_on(server: Running, atlas: eftlocal.FusedModel) -> None:
    """As in Python, and with OpenAI's fields."""
    answer = server.post(COMPLETIONS, prompt=CHILE, max_tokens=8)
    expected = atlas.complete(CHILE, max_tokens=8)
    (choice,) = answer["choices"]
    assert choice == {
        "text": expected.text, "index": 0, "logprobs": None, "finish_reason": "length"
    }  # fmt: skip
    assert answer["object"] == "text_completion" and answer["id"].startswith("cmpl-")
    assert answer["usage"]["prompt_tokens"] == len(expected.prompt_tokens)


def test_forms_of_prompts(server: Running, atlas: eftlocal.FusedModel) -> None:
    """A text, texts, ids and lists of ids; choices in the order of the prompts, n for each."""
    ids = atlas.tokenize(CHILE, special=True)
    other = atlas.tokenize("The capital of France is", special=True)
    (text,) = complete(server, CHILE, max_tokens=6)
    (one,) = complete(server, ids, max_tokens=6)
    assert one == text
    several = complete(server, [ids, other, ids], max_tokens=6, n=2)
    assert [choice["index"] for choice in several] == list(range(6))
    assert [choice["text"] for choice in several[:2]] == [text["text"]] * 2
    assert several[2]["text"].strip().startswith("Paris")
    assert several[4]["text"] == text["text"]
    texts = complete(server, [CHILE, "The capital of France is"], max_tokens=6)
    assert [choice["text"] for choice in texts] == [several[0]["text"], several[2]["text"]]
    usage = server.post(COMPLETIONS, prompt=[ids, other], n=3, max_tokens=2)["usage"]
    assert usage["prompt_tokens"] == len(ids) + len(other)
    assert usage["completion_tokens"] == 12


def test_markers_in_a_text_are_control_tokens(server: Running, atlas: eftlocal.FusedModel) -> None:
    """As in Python: a template can be written by hand."""
    prompt = "<|user|>What is the capital of France?<|end|><|assistant|>"
    answer = server.post(COMPLETIONS, prompt=prompt)
    (choice,) = answer["choices"]
    assert choice["text"].startswith("The capital of France is Paris")
    assert answer["usage"]["prompt_tokens"] == len(atlas.tokenize(prompt, special=True))


def test_echo(server: Running) -> None:
    """The prompt as it was given; ids as their text, markers included; nothing is added."""
    (plain,) = complete(server, CHILE, max_tokens=4)
    (echoed,) = complete(server, CHILE, max_tokens=4, echo=True)
    assert echoed["text"] == CHILE + plain["text"]
    (ids,) = complete(server, [1, 5, 352, 6], max_tokens=1, echo=True)
    assert ids["text"].startswith("<s><|assistant|>The<|end|>")
    (only,) = complete(server, CHILE, max_tokens=0, echo=True)
    assert only["text"] == CHILE and only["finish_reason"] == "length"
    assert server.refused(COMPLETIONS, prompt=CHILE, max_tokens=0)["param"] == "max_tokens"


def test_scores(exact_server: Running) -> None:
    """Echo with logprobs: the log-probabilities of the prompt, whatever way they are asked for."""
    prompt = [1, 20, 300, 400, 500, 600]
    (choice,) = complete(exact_server, prompt, max_tokens=1, echo=True, logprobs=2)
    scores = choice["logprobs"]
    assert [len(scores[name]) for name in scores] == [len(prompt) + 1] * 4
    assert scores["token_logprobs"][0] is None and scores["top_logprobs"][0] is None
    for length in range(1, len(prompt)):
        bias = {str(prompt[length]): 100}
        (one,) = complete(
            exact_server, prompt[:length], max_tokens=1, logprobs=0, logit_bias=bias, temperature=0
        )
        assert one["logprobs"]["token_logprobs"] == pytest.approx(
            [scores["token_logprobs"][length]], abs=2e-3
        )
    (only,) = complete(exact_server, prompt, max_tokens=0, echo=True, logprobs=2)
    for name, values in only["logprobs"].items():
        assert values == about(scores[name][:-1])


@pytest.mark.parametrize("stop", [None, "of", "ile is S"])
def test_offsets(server: Running, stop: str | None) -> None:
    """Where each token begins in the text, with echo and without, also before a stop string."""
    for echo in (False, True):
        (choice,) = complete(
            server, "Chile", max_tokens=40, logprobs=1, echo=echo, stop=stop, temperature=0
        )
        report, text = choice["logprobs"], choice["text"]
        pairs = list(zip(report["tokens"], report["text_offset"], strict=True))
        if echo:
            assert pairs[0] == ("<s>", 0)
            pairs = pairs[2:]  # BOS, and a first token with a space that the text does not have
        assert pairs
        for token, offset in pairs:
            assert (text + "<|end|>")[offset:].startswith(token[: len(text) - offset])


def test_every_row_has_the_chosen_token(exact_server: Running) -> None:
    """Under the very text that stands in `tokens`; no two ids share a key."""
    (choice,) = complete(
        exact_server, [1, 2, 3], max_tokens=60, logprobs=20, temperature=5.0, seed=1
    )
    report = choice["logprobs"]
    rows = zip(report["tokens"], report["token_logprobs"], report["top_logprobs"], strict=True)
    cut = 0
    for token, logprob, row in rows:
        assert row[token] == logprob
        assert len(row) in (20, 21)
        assert max(row.values()) == next(iter(row.values()))
        cut += sum(name.startswith("bytes:\\x") for name in row)
    assert cut, "no token of these models is a part of a character"


def test_two_ids_with_one_text() -> None:
    """The chosen one has the text, then the likeliest; the other one is named by its id."""
    pieces = Pieces([b"a", b"a", b"b", b"\xe2"], [b""] * 4, frozenset())
    top = ((1, -0.5), (2, -1.0), (3, -math.inf))
    event = TokenEvent(0, -2.0, (1.0,), top=top)
    report = legacy_logprobs([Placed(event, 7)], pieces, shift=3)
    assert report == {
        "tokens": ["a"],
        "token_logprobs": [-2.0],
        "top_logprobs": [{"token_id:1": -0.5, "b": -1.0, "bytes:\\xe2": -9999.0, "a": -2.0}],
        "text_offset": [10],
    }


def test_choices_of_a_prompt_differ(exact_server: Running) -> None:
    """Each choice has its own noise; prompts have the same."""
    settings: Json = {"n": 3, "max_tokens": 8, "temperature": 2.0, "seed": 1}
    texts = [choice["text"] for choice in complete(exact_server, ["one", "one"], **settings)]
    assert len(set(texts[:3])) == 3 and texts[:3] == texts[3:]


def test_streams_are_the_same(exact_server: Running) -> None:
    """Chunks, put together, are the answer in one piece; with echo and scores, too."""
    for fields in ({}, {"logprobs": 3}, {"echo": True, "max_tokens": 9}, {"stop": ["a", "e"]},
                   {"echo": True, "logprobs": 2}, {"alphas": True}):  # fmt: skip
        settings: Json = {"prompt": ["one", "two"], "n": 2, "max_tokens": 20, "temperature": 1.0,
                          "seed": 4, **fields}  # fmt: skip
        whole = exact_server.post(COMPLETIONS, **settings)["choices"]
        chunks = exact_server.stream(COMPLETIONS, **settings)
        assert all(chunk["object"] == "text_completion" for chunk in chunks)
        for expected in whole:
            parts = [
                c["choices"][0] for c in chunks if c["choices"][0]["index"] == expected["index"]
            ]
            assert "".join(part["text"] for part in parts) == expected["text"]
            assert [part["finish_reason"] for part in parts][-1] == expected["finish_reason"]
            assert not any(part["finish_reason"] for part in parts[:-1])
            if "logprobs" in fields:
                for name, values in expected["logprobs"].items():
                    joined = [item for part in parts for item in part["logprobs"][name]]
                    assert joined == about(values)
            if "alphas" in fields:
                tokens = [token for part in parts for token in part["eft"]["tokens"]]
                assert tokens == about(expected["eft"]["tokens"])


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"prompt": []}, "prompt", "empty"),
        ({"prompt": [[]]}, None, "at least one token"),
        ({"prompt": [5000]}, None, "0 to 2047"),
        ({"prompt": [-1]}, None, "0 to 2047"),
        ({"prompt": [1.5]}, "prompt[0]", "integer"),
        ({"prompt": ["a", 5]}, "prompt", "not allowed"),
        ({"prompt": ["a"] * 129, "n": 2}, "n", "more than 256"),
        ({"logprobs": 21}, "logprobs", "at most 20"),
        ({"logprobs": True}, "logprobs", "integer"),
        ({"suffix": "x"}, "suffix", "fill no gaps"),
        ({"best_of": 2}, "best_of", "use n"),
        ({"messages": []}, "messages", "not a known field"),
    ],
)
def test_what_is_wrong_is_said(
    server: Running, fields: dict[str, Any], param: str | None, says: str
) -> None:
    """A 400 that names the field, where it is one."""
    error = server.refused(COMPLETIONS, **{"prompt": "The", **fields})
    assert says in error["message"]
    assert param is None or error["param"].startswith(param)


def test_a_missing_prompt(server: Running) -> None:
    """A sentence, not pydantic's list."""
    assert "prompt is missing" in server.refused(COMPLETIONS, max_tokens=5)["message"]
    assert server.post(COMPLETIONS, prompt="The", max_tokens=1, n=2, best_of=2)["choices"]
