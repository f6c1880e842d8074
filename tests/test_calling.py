"""Tools in the Python API: prompts, calls that are asked for, several turns, several styles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eftlocal
from eftlocal.errors import PromptError, UsageError

from . import callers
from .callers import (
    CALL_END,
    CALL_MARK,
    NAMED,
    OPTIONS,
    QUESTION,
    THINK,
    THINK_END,
    TIME,
    TOOLS,
    is_right,
)
from .conftest import Trio
from .tool_templates import QWEN_2_5, QWEN_3


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    """Models whose template has tools."""
    return callers.write(tmp_path_factory.mktemp("callers"), QWEN_2_5)


@pytest.fixture(scope="module")
def model(files: Trio) -> Iterator[eftlocal.FusedModel]:
    """The same, loaded."""
    with eftlocal.load(**files._asdict(), threads=1) as loaded:
        yield loaded


def prompt_of(model: eftlocal.FusedModel, **options: Any) -> str:
    """The text that the base reads."""
    ids = model.prepare_chat(QUESTION, **options).prompt
    return b"".join(model.vocabulary.piece(token, special=True) for token in ids).decode()


def test_tools_are_in_the_prompt(model: eftlocal.FusedModel) -> None:
    """As the template prints them; not where none may be called."""
    assert '"name": "weather"' in prompt_of(model, tools=TOOLS)
    assert prompt_of(model, tools=TOOLS, tool_choice="none") == prompt_of(model)
    assert "weather" not in prompt_of(model)


@pytest.mark.parametrize("draft", [4, 16])
def test_calls_that_are_asked_for(model: eftlocal.FusedModel, draft: str | int) -> None:
    """Every seed gives calls alone that fit the schemas, the same with any draft."""
    names, counts = set(), set()
    for seed in range(6):
        options = {**OPTIONS, "seed": seed, "tools": TOOLS, "tool_choice": "required"}
        reply = model.chat(QUESTION, draft=draft, **options)
        assert reply.finish_reason == "stop"
        assert reply.answer == ""
        assert reply.text.startswith('<tool_call>\n{"name": "')
        assert reply.text == model.chat(QUESTION, draft="off", **options).text
        assert all(is_right(call.name, call.parsed) for call in reply.tool_calls)
        assert reply.tool_calls == reply.tool_calls
        names |= {call.name for call in reply.tool_calls}
        counts.add(len(reply.tool_calls))
    assert names == {"weather", "time"}
    assert min(counts) == 1 < max(counts)


def test_one_call(model: eftlocal.FusedModel) -> None:
    """Of the function that is named, or of any."""
    for choice, parallel in ((NAMED, None), ("required", False)):
        for seed in range(4):
            reply = model.chat(
                QUESTION,
                tools=TOOLS,
                tool_choice=choice,
                parallel_tool_calls=parallel,
                **{**OPTIONS, "seed": seed},
            )
            (call,) = reply.tool_calls
            assert is_right(call.name, call.parsed)
            assert choice != NAMED or call.name == "weather"


def test_a_free_reply_is_text(model: eftlocal.FusedModel) -> None:
    """With tools a reply may be text, and a marker that begins no call stays in it."""
    bias = {CALL_MARK: 1000.0}
    options = {**OPTIONS, "max_tokens": 3, "logit_bias": bias, "seed": 1}
    assert model.chat(QUESTION, tools=TOOLS, **options).answer == "<tool_call>" * 3
    assert model.chat(QUESTION, **options).answer == ""


def test_the_next_turn_goes_on_from_the_cache(model: eftlocal.FusedModel) -> None:
    """The call comes back in the template's words: nothing up to it is read again."""
    options = {**OPTIONS, "tools": [TIME]}
    first = model.chat(QUESTION, tool_choice="required", parallel_tool_calls=False, **options)
    (call,) = first.tool_calls
    said = {"role": "assistant", "content": None, "tool_calls": [call.message]}
    told = {"role": "tool", "tool_call_id": call.id, "content": "noon"}
    second = model.chat([*QUESTION, said, told], **options)
    assert second.timings.cached_tokens >= len(first.prompt_tokens)
    ids = list(second.prompt_tokens)
    assert CALL_MARK in ids[len(first.prompt_tokens) :]
    assert CALL_END in ids[len(first.prompt_tokens) :]
    text = b"".join(model.vocabulary.piece(token) for token in ids).decode()
    assert "<tool_response>\nnoon\n</tool_response>" in text


def test_what_does_not_go_together(model: eftlocal.FusedModel) -> None:
    """A reply has one form; and options are checked before anything runs."""
    with pytest.raises(UsageError, match=r"^json_schema cannot go together with a tool_choice"):
        model.prepare_chat(QUESTION, tools=TOOLS, tool_choice=NAMED, json_schema=True)
    model.prepare_chat(QUESTION, tools=TOOLS, json_schema=True)
    with pytest.raises(UsageError, match=r"^tools\[0\] is not an object"):
        model.prepare_chat(QUESTION, tools=[1])  # type: ignore[list-item]
    deep: dict[str, Any] = {}
    for _ in range(60_000):
        deep = {"items": deep}
    tool = {"type": "function", "function": {"name": "f", "parameters": deep}}
    with pytest.raises(UsageError, match=r"^tools\[0\] is nested too deep"):
        model.prepare_chat(QUESTION, tools=[tool])


def test_a_second_template_for_tools(tmp_path: Path) -> None:
    """Some files have one besides the usual one; it is used where there are tools."""
    usual = "{% for m in messages %}{{ m.content }}{% endfor %}"
    both: Any = [
        {"name": "default", "template": usual},
        {"name": "tool_use", "template": QWEN_2_5},
    ]
    with eftlocal.load(**callers.write(tmp_path, both)._asdict(), threads=1) as model:
        assert prompt_of(model).removeprefix("<s>").strip() == "Hello"
        assert "<|im_start|>user\nHello" in prompt_of(model, tools=TOOLS)
        assert model.chat_template == usual
        reply = model.chat(QUESTION, tools=TOOLS, tool_choice=NAMED, **OPTIONS)
        assert [call.name for call in reply.tool_calls] == ["weather"]


def test_a_template_without_tools(trio: Trio) -> None:
    """One clear line; without tools, or where none may be called, the model answers."""
    with eftlocal.load(**trio._asdict(), threads=1) as model:
        with pytest.raises(PromptError, match=r"^the model's chat template has no tools$"):
            model.chat(QUESTION, tools=TOOLS)
        assert model.chat(QUESTION, tools=TOOLS, tool_choice="none", max_tokens=1).tokens


@pytest.mark.parametrize("opened", [True, False])
def test_thinking_comes_before_a_call(tmp_path: Path, opened: bool) -> None:
    """A call that is asked for stands behind the block, whoever has opened it."""
    template = QWEN_3 + ("{{ '<think>\\n' }}" if opened else "")
    bias = {THINK_END: 14.0} if opened else {THINK: 100.0, THINK_END: 112.0}
    with eftlocal.load(**callers.write(tmp_path, template)._asdict(), threads=1) as model:
        for seed in range(3):
            options = {**OPTIONS, "seed": seed, "logit_bias": bias, "tool_choice": "required"}
            reply = model.chat(QUESTION, tools=TOOLS, parallel_tool_calls=False, **options)
            assert reply.finish_reason == "stop"
            assert reply.thinking_opened == opened
            assert reply.text.startswith("<think>") != opened
            assert "</think>" in reply.text
            assert reply.answer == ""
            (call,) = reply.tool_calls
            assert is_right(call.name, call.parsed)


def test_styles(files: Trio, tmp_path: Path) -> None:
    """A base with plain prompts reads the tools in words; a tuned model has to have a template."""
    roles = [f'{role} = {{ path = "{path}" }}' for role, path in files._asdict().items()]
    entry = "\n".join(["[models.x]", *roles, "threads = 1", 'prompt = "tuned-only"'])
    models = tmp_path / "models.toml"
    models.write_text(entry + "\n")
    with eftlocal.load("x", models=models) as model:
        text = prompt_of(model, tools=[TIME])
        wanted = "Tools:\n- time(): Tells the time.\nUser: Hello\nAssistant:"
        assert text.removeprefix("<s>").strip() == wanted
        reply = model.chat(QUESTION, tools=TOOLS, tool_choice=NAMED, **OPTIONS)
        assert [call.name for call in reply.tool_calls] == ["weather"]
    models.write_text(entry + '\ntemplates = { tuned = "plain" }\n')
    with (
        eftlocal.load("x", models=models) as model,
        pytest.raises(PromptError, match="plain text, without a chat template for tools"),
    ):
        model.chat(QUESTION, tools=TOOLS)
