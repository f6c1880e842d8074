"""Constraints on real models, by Python and by the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import eftlocal
from eftlocal import FusedModel
from eftlocal.cli.commands import parse_value
from eftlocal.constraints.matching import LIMITS
from eftlocal.errors import ConstraintError, UsageError

from .cli_helpers import environment, run
from .gguf_models import CHAT_TEMPLATE
from .thinkers import OPTIONS, QUESTION, message, write

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "answer": {"type": "string", "maxLength": 60},
        "sure": {"type": "boolean"},
        "years": {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 2},
    },
    "required": ["answer", "sure", "years"],
    "additionalProperties": False,
}
REGEX = r"[A-Z][a-z]+ is (the capital|a city) of [A-Z][a-z]+\."
GRAMMAR = 'root ::= ("yes" | "no") ", " [a-z]{2,12} "."'
ASKED = message("What is the capital of Chile?")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests share the machine."""
    monkeypatch.setenv("EFTLOCAL_THREADS", "1")


def check_reply(options: dict[str, Any], text: str) -> None:
    """Check a reply against what was asked for, by other means."""
    if "json_schema" in options:
        schema = options["json_schema"]
        jsonschema.validate(json.loads(text), {"type": "object"} if schema is True else schema)
    elif "regex" in options:
        assert re.fullmatch(options["regex"], text)
    else:
        assert re.fullmatch(r"(yes|no), [a-z]{2,12}\.", text)


WANTED: tuple[dict[str, Any], ...] = (
    {"json_schema": SCHEMA},
    {"regex": REGEX},
    {"grammar": GRAMMAR},
)


@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: str(*wanted))
@pytest.mark.parametrize("accept", ["coupled", "rejection"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_every_draft_gives_the_same_reply(
    atlas: FusedModel, wanted: dict[str, Any], accept: str, temperature: float
) -> None:
    """And the reply is what was asked for."""
    options = wanted | {"accept": accept, "temperature": temperature, "seed": 5}
    replies = [atlas.chat(ASKED, draft=draft, **options) for draft in ("off", 2, 5, 16)]
    assert len({reply.tokens for reply in replies}) == 1
    for reply in replies:
        assert reply.finish_reason == "stop"
        check_reply(wanted, reply.text)
        np.testing.assert_allclose(reply.logprobs, replies[0].logprobs, atol=1e-3)
    assert replies[-1].timings.accepted > 0


def test_logprobs_are_those_of_the_fused_distribution(atlas: FusedModel) -> None:
    """What is not allowed counts, too: scoring the same tokens as a prompt gives the same."""
    prompt = "The capital of Chile is"
    reply = atlas.complete(prompt, regex=" [A-Z][a-z]+, I think\\.", temperature=0)
    ids = [*atlas.tokenize(prompt, special=True), *reply.tokens]
    scores = atlas.score(ids)[-len(reply.tokens) :]
    np.testing.assert_allclose(reply.logprobs, [score.logprob for score in scores], atol=1e-3)
    assert sum(reply.logprobs) < -1


def test_a_reply_that_is_cut_says_so(atlas: FusedModel) -> None:
    """max_tokens may end it in the middle."""
    reply = atlas.chat(ASKED, json_schema=SCHEMA, max_tokens=3)
    assert (reply.finish_reason, len(reply.tokens)) == ("length", 3)


def test_a_wrong_constraint_is_refused_before_anything_runs(atlas: FusedModel) -> None:
    """The model can be used afterwards."""
    with pytest.raises(UsageError, match="Invalid type"):
        atlas.prepare_chat(ASKED, json_schema={"type": "text"})
    assert atlas.chat(ASKED, max_tokens=2).tokens


def test_a_constraint_that_fails_on_the_way_is_an_error(
    atlas: FusedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that does not match is ever taken for an answer."""
    monkeypatch.setitem(LIMITS, "max_lexer_states", 200)
    stream = atlas.stream_chat(ASKED, regex=".*a.{30}", temperature=3.0, seed=1)
    with pytest.raises(ConstraintError, match="cannot follow"):
        for _ in stream:
            pass
    assert not stream.is_running
    assert stream.completion.finish_reason == "error"
    assert atlas.chat(ASKED, max_tokens=2).tokens


@pytest.fixture(scope="module", params=["model", "prompt"])
def thinking(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FusedModel]:
    """A random model that opens <think> blocks, or whose template does."""
    opened = "<|assistant|>" + ("<think>\n" if request.param == "prompt" else "")
    template = CHAT_TEMPLATE.replace("<|assistant|>", opened)
    trio = write(tmp_path_factory.mktemp("thinking"), template + "{# <think> #}")
    with eftlocal.load(**trio._asdict(), threads=1) as model:
        yield model


def test_thinking_stays_free(thinking: FusedModel) -> None:
    """The answer matches, whatever is thought before it, with every draft."""
    n_thoughts = 0
    for seed in range(12):
        options = OPTIONS | {"regex": "[ab]{4}", "max_tokens": 200, "seed": seed}
        replies = [
            thinking.chat(message(QUESTION), **options | {"draft": draft}) for draft in ("off", 4)
        ]
        assert replies[0].tokens == replies[1].tokens
        assert replies[0].finish_reason == "stop"
        assert re.fullmatch("[ab]{4}", replies[0].answer)
        n_thoughts += replies[0].thinking != ""
    assert n_thoughts > 2


def test_texts_without_a_template_do_not_think(thinking: FusedModel) -> None:
    """A constraint of `complete` is for the text from its first token on."""
    reply = thinking.complete("ab", **OPTIONS | {"regex": "[ab]{4}", "max_tokens": 200})
    assert re.fullmatch("[ab]{4}", reply.text)


def test_the_command_line_takes_files(tmp_path: Path) -> None:
    """`chat --json-schema FILE QUESTION` prints JSON by the schema; the others likewise."""
    schema, grammar = tmp_path / "schema.json", tmp_path / "answer.gbnf"
    schema.write_text(json.dumps(SCHEMA))
    grammar.write_text(GRAMMAR + "\n")
    more = ("--temperature", "0", "What is the capital of Chile?")
    for args, wanted in (
        (("chat", "--json-schema", str(schema)), WANTED[0]),
        (("chat", "--json-schema", json.dumps(SCHEMA)), WANTED[0]),
        (("complete", "--regex", REGEX), WANTED[1]),
        (("chat", "--grammar", str(grammar)), WANTED[2]),
    ):
        result = run(*args, *more)
        assert result.exit_code == 0, result.output
        check_reply(wanted, result.stdout.removesuffix("\n"))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--json-schema", "nothing.json"), "nothing.json cannot be read"),
        (("--json-schema", '{"type": "text"}'), "Invalid type: text"),
        (("--json-schema", "{"), "no JSON"),
        (("--json-schema", '{"items":' * 60_000), "no JSON"),
        (("--regex", "(("), "unclosed group"),
        (("--grammar", "nothing.gbnf"), "nothing.gbnf cannot be read"),
        (("--regex", "a", "--json-schema", "true"), "use one of them"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_wrong_is_said_before_models_are_loaded(args: tuple[str, ...], says: str) -> None:
    """In one line, with the exit code of wrong usage; the models need not even exist."""
    missing = ("--base", "b.gguf", "--tuned", "t.gguf", "--reference", "r.gguf")
    result = run("chat", *missing, *args, QUESTION)
    assert result.exit_code == 2
    assert says in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.output


def test_parameters_of_a_chat() -> None:
    """`/set parameter` takes what the command line takes, and shows it."""
    assert parse_value("json_schema", '{"type": "object"}') == {"type": "object"}
    assert parse_value("json_schema", "true") is True
    assert parse_value("grammar", GRAMMAR) == GRAMMAR
    assert parse_value("regex", "a b") == "a b"
    with pytest.raises(UsageError, match="cannot be read"):
        parse_value("grammar", "nothing.gbnf")


def test_llguidance_is_loaded_where_it_is_needed(tmp_path: Path) -> None:
    """Other replies do without it."""
    code = (
        "import sys, eftlocal; model = eftlocal.load('atlas', threads=1);"
        "model.chat([{'role': 'user', 'content': 'Hi'}], max_tokens=1); print(*sys.modules);"
        "model.chat([{'role': 'user', 'content': 'Hi'}], regex='a'); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, check=True
    )
    before, after = done.stdout.decode().splitlines()
    assert "llguidance" not in before.split()
    assert "llguidance" in after.split()
