"""How a part is asked for: HTTP, the command line, model entries; and who refuses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import eftlocal
from eftlocal.cli.commands import describe_model
from eftlocal.errors import UsageError
from eftlocal.evaluate.parts import Lineup
from eftlocal.evaluate.systems import Models
from eftlocal.explain import read_trace
from eftlocal.explain.analysis import changes_at, summarise
from eftlocal.options import PARTS

from .cli_chat import new_chat, replies, say
from .cli_helpers import files, run
from .conftest import Trio
from .full_server import CHAT, COMPLETIONS, FRANCE, Running

ALONE = PARTS[1:]


def test_requests_name_a_part(server: Running, atlas: eftlocal.FusedModel) -> None:
    """In both kinds of OpenAI's requests and in Ollama's options."""
    chat: dict[str, Any] = {"max_tokens": 9, "temperature": 0, "draft": "off"}
    for part in PARTS:
        answer = server.chat(part=part, alphas=True, alpha=0.5, **chat)["choices"][0]
        same = atlas.chat(FRANCE, part=part, alpha=0.5, **chat)
        assert answer["message"]["content"] == same.text
        told = [token["alpha"] for token in answer["eft"]["tokens"]]
        assert told == [[0.5 if part == "fused" else 0.0]] * len(same.tokens)
        options = {"part": part, "num_predict": 9, "temperature": 0, "draft": "off"}
        options["alpha"] = 0.5
        body: dict[str, Any] = {"model": "atlas", "messages": FRANCE, "options": options}
        answer = server.post("/api/chat", stream=False, **body)
        assert answer["message"]["content"] == same.text
    traced = server.post(COMPLETIONS, prompt="The sea", part="base", trace=True, **chat)
    origins = {token["trace"]["origin"] for token in traced["choices"][0]["eft"]["tokens"]}
    assert origins <= {"agreement", "alone"}


@pytest.mark.parametrize("value", ["floor", "Base", "", 1, ["base"], True])
def test_requests_with_another_part_are_refused(server: Running, value: object) -> None:
    """One sentence names the field and the values; null is the server's own."""
    for path, body in ((CHAT, {"messages": FRANCE}), (COMPLETIONS, {"prompt": "x"})):
        error = server.refused(path, part=value, **body)
        assert error["param"] == "part" and "\n" not in error["message"]
        assert "'base', 'tuned' or 'reference'" in error["message"]
    assert server.chat(part=None, max_tokens=1)["choices"]


def test_the_command_line_names_a_part(trio: Trio) -> None:
    """`--part base` is alpha 0; the other parts are as in Python."""
    limits = ("--max-tokens", "10", "--seed", "5", "--threads", "1", "--draft", "off")
    args = ["complete", *files(trio), "--json", *limits]
    by_part = json.loads(run(*args, "--part", "base", "the other thing").stdout)
    by_alpha = json.loads(run(*args, "--alpha", "0", "the other thing").stdout)
    assert all(by_part[key] == by_alpha[key] for key in ("tokens", "logprobs", "alphas", "text"))
    with eftlocal.load(**trio._asdict(), threads=1) as model:
        for part in ALONE:
            found = json.loads(run(*args, "--part", part, "the other thing").stdout)
            same = model.complete("the other thing", part=part, max_tokens=10, seed=5, draft="off")
            assert found["tokens"] == list(same.tokens)
    variable = run(*args, "the other thing", env={"EFTLOCAL_PART": "base"})
    assert json.loads(variable.stdout)["tokens"] == by_part["tokens"]


def entry_of(trio: Trio, folder: Path, part: str) -> list[str]:
    """The options that choose a model entry with that part."""
    lines = [f'{role} = {{ path = "{path}" }}' for role, path in trio._asdict().items()]
    path = folder / "models.toml"
    path.write_text("\n".join(["[models.one]", *lines, f'part = "{part}"', "max_tokens = 6"]))
    return ["--models", str(path), "-m", "one"]


def test_an_entry_names_a_part(trio: Trio, tmp_path: Path) -> None:
    """Its value is what holds where nobody says otherwise; a wrong one is one line."""
    named = entry_of(trio, tmp_path, "tuned")
    args = ["--max-tokens", "6", "--seed", "5", "--threads", "1", "the other thing"]
    own, tuned, fused = (
        run("complete", *model, *args).stdout
        for model in (named, [*files(trio), "--part", "tuned"], [*named, "--part", "fused"])
    )
    assert own == tuned != fused
    assert fused == run("complete", *files(trio), *args).stdout
    wrong = run("complete", *entry_of(trio, tmp_path, "floor"), *args)
    assert wrong.exit_code != 0 and wrong.stderr.count("\n") == 1
    assert "part" in wrong.stderr and "fused, base, tuned or reference" in wrong.stderr


@pytest.mark.parametrize("name", [["explain"], ["eval", "tasks"], ["eval", "judge"]])
def test_what_is_about_fusing_refuses_a_part(trio: Trio, tmp_path: Path, name: list[str]) -> None:
    """In one line, before anything is loaded; also the part of an entry."""
    more = {
        "explain": ["hi"],
        "tasks": ["--tasks", "atlas"],
        "judge": ["--out", str(tmp_path / "o")],
    }
    for model in ([*files(trio), "--part", "tuned"], entry_of(trio, tmp_path, "tuned")):
        result = run(*name, *model, *more[name[-1]])
        line = f"part = tuned is not allowed here: {name[0]} is about the fused model; use fused"
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"eftlocal: {line}\n"


def test_studies_do_not_read_the_part_of_the_environment(trio: Trio, tmp_path: Path) -> None:
    """They choose options themselves: an entry's part is refused, a variable says nothing."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "hello"}\n')
    args = ["eval", "divergence", "--prompts", str(prompts), "--max-tokens", "3", "--json"]
    named = run(*args, *entry_of(trio, tmp_path, "base"))
    assert "part = base is not allowed here: eval is about the fused model" in named.stderr
    sections = []
    for variables in ({}, {"EFTLOCAL_PART": "base"}):
        env = {"XDG_CACHE_HOME": str(tmp_path / str(len(variables))), **variables}
        found = run(*args, *files(trio), "--threads", "1", env=env)
        assert found.exit_code == 0, found.stderr
        sections.append(json.loads(found.stdout)["sections"])
    assert sections[0] == sections[1]


def test_a_saved_reply_of_a_part_is_not_explained(trio: Trio, tmp_path: Path) -> None:
    """A trace file takes it; what describes fusing says what it is instead."""
    path = tmp_path / "trace.jsonl"
    args = [*files(trio), "--max-tokens", "6", "--threads", "1", "--trace", str(path)]
    assert run("complete", *args, "--part", "reference", "the other thing").exit_code == 0
    (saved,) = read_trace(path)
    assert saved.header.options["part"] == "reference"
    assert {token.trace.origin for token in saved.tokens} <= {"agreement", "alone", "sampling"}
    for more in ([], ["--json"], ["--alpha", "0.5"], ["--html", str(tmp_path / "page.html")]):
        result = run("explain", "--from", str(path), *more)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert "that of one model alone (part = reference)" in result.stderr
    assert not (tmp_path / "page.html").exists()
    for work in (summarise, lambda found: changes_at(found, 0.5)):
        with pytest.raises(UsageError, match="one model alone"):
            work(saved)


def test_other_parts_of_an_entry_with_a_part(trio: Trio, tmp_path: Path) -> None:
    """What eval asks alone stays what its title says."""
    entry_of(trio, tmp_path, "tuned")
    models = Models("one", models=tmp_path / "models.toml")
    lineup = Lineup(models, tmp_path, alone=("base", "tuned", "reference"))
    contents = [part.system.content["options"] for part in lineup.others()]
    assert len(contents) == 3
    assert not any("part" in found for found in contents)


def test_kept_results_stay_valid(trio: Trio) -> None:
    """Content is what it was before there were parts, but for a part that speaks alone."""
    models = Models(files={role: str(path) for role, path in trio._asdict().items()})
    assert models.content({"part": "fused"}) == models.content({})
    assert "part" not in models.content({})["options"]
    assert models.content({"part": "base"})["options"]["part"] == "base"


def test_a_chat_says_who_speaks(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line about the model names the part in the place of alpha, which has no effect."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with eftlocal.load(**trio._asdict(), threads=1, ctx=256) as model:
        chat = new_chat(trio, model)
        assert describe_model(chat).startswith("base.gguf: alpha 1.0, temperature")
        say(chat, "/set parameter part tuned", "/set parameter draft off", "hello")
        assert describe_model(chat).startswith("base.gguf: tuned alone, temperature")
        assert chat.session.options["part"] == "tuned"
        said = model.chat([{"role": "user", "content": "hello"}], **chat.session.options)
        assert replies(chat) == [said.text]
        assert said.alphas[0] == (0.0,)
