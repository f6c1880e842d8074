"""Tools, calls and answers of tools in templates of the shapes that real models have."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from eftlocal import templates
from eftlocal.errors import PromptError
from eftlocal.templates import ChatTemplate
from eftlocal.toolcalls import read_tools, split_calls

from .tool_data import FORMATS, WEATHER
from .tool_templates import LLAMA_3_1, MISTRAL, QWEN_2_5, TEMPLATES

ARGUMENTS = '{"city":"K\\u00f6ln", "days": 2}'
CALL = {"function": {"name": "weather", "arguments": ARGUMENTS}, "id": "abcdefghi"}
TOLD = {"role": "tool", "content": '{"sky": "blue"}', "tool_call_id": "abcdefghi"}
ASKED = {"role": "user", "content": "Weather?"}
CONVERSATION: list[dict[str, Any]] = [
    ASKED,
    {"role": "assistant", "content": None, "tool_calls": [{**CALL, "type": "function"}]},
    TOLD,
]
INNER = '{"name": "weather", "arguments": {"city": "Köln", "days": 2}'
_TURN = "<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant"
_TOLD = '<tool_response>\n{"sky": "blue"}\n</tool_response><|im_end|>\n<|im_start|>assistant\n'
_CALLED = f"<tool_call>\n{INNER}}}\n</tool_call><|im_end|>\n"
_LLAMA = "<|eot_id|><|start_header_id|>"
CALLS = {
    "qwen2.5": f"{_TURN}\n{_CALLED}<|im_start|>user\n{_TOLD}",
    "qwen3": f"{_TURN}\n\n{_CALLED}<|im_start|>user\n{_TOLD}",
    "hermes": f"<s>{_TURN}\n{_CALLED}<|im_start|>tool\n"
    '{"sky": "blue"}<|im_end|>\n<|im_start|>assistant\n',
    "llama3.1": f"<s><|start_header_id|>system<|end_header_id|>\n\n{_LLAMA}user<|end_header_id|>"
    f"\n\nWeather?{_LLAMA}assistant<|end_header_id|>\n\n"
    + INNER.replace("arguments", "parameters")
    + f'}}{_LLAMA}ipython<|end_header_id|>\n\n"{{\\"sky\\": \\"blue\\"}}"'
    f"{_LLAMA}assistant<|end_header_id|>\n\n",
    "mistral": f'<s>[INST]Weather?[/INST][TOOL_CALLS][{INNER}, "id": "abcdefghi"}}]</s>'
    '[TOOL_RESULTS]{"content": {"sky": "blue"}, "call_id": "abcdefghi"}[/TOOL_RESULTS]',
}


def definitions() -> tuple[Any, ...]:
    """The tools as templates get them."""
    tools = read_tools([WEATHER])
    assert tools is not None
    return tools.definitions


@pytest.mark.parametrize("name", CALLS)
def test_calls_in_the_conversation(name: str) -> None:
    """Arguments are given as JSON text and printed as an object; null content is empty."""
    template = ChatTemplate(TEMPLATES[name], bos="<s>", eos="</s>")
    before = json.dumps(CONVERSATION)
    assert template.render(CONVERSATION) == CALLS[name]
    assert json.dumps(CONVERSATION) == before


@pytest.mark.parametrize("name", TEMPLATES)
def test_tools_are_printed(name: str) -> None:
    """All of these templates have tools, and show them before the reply."""
    template = ChatTemplate(TEMPLATES[name], bos="<s>", eos="</s>")
    assert template.has_tools
    for messages in ([ASKED], CONVERSATION):
        with_tools = template.render(messages, definitions())
        assert with_tools != template.render(messages)
        assert "weather" in with_tools
        assert "city" in with_tools


OTHERS: dict[str, list[dict[str, Any]]] = {
    "what openai's package sends back": [
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "annotations": [],
            "function_call": None,
            "tool_calls": [CALL],
        },
    ],
    "Ollama's form": [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {**CALL, "function": {"name": "weather", "arguments": json.loads(ARGUMENTS)}}
            ],
        }
    ],
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("messages", OTHERS.values(), ids=OTHERS)
def test_other_forms_of_the_same_call(name: str, messages: list[dict[str, Any]]) -> None:
    """Null keys and parsed arguments change nothing."""
    template = ChatTemplate(TEMPLATES[name], bos="<s>", eos="</s>")
    assert template.render([ASKED, *messages, TOLD]) == CALLS[name]


def test_a_reply_without_calls_has_no_calls() -> None:
    """Templates ask for the key tool_calls: an empty list or null must not look like calls."""
    for name in ("llama3.1", "mistral"):
        template = ChatTemplate(TEMPLATES[name], bos="<s>", eos="</s>")
        plain = template.render([ASKED, {"role": "assistant", "content": "Hi"}, ASKED])
        none: list[Any] = [None, [], ()]
        for calls in none:
            said = {"role": "assistant", "content": "Hi", "tool_calls": calls}
            assert template.render([ASKED, said, ASKED]) == plain


def test_arguments_that_are_no_object_stay_text() -> None:
    """A model may have written anything; the template gets it as it is."""
    for text in ('{"city": ', "[1]", "3", "x" * 10):
        call = {"function": {"name": "weather", "arguments": text}}
        said: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [call]}
        assert json.dumps(text) in ChatTemplate(QWEN_2_5).render([ASKED, said, TOLD])
    empty = [{"function": {"name": "weather", "arguments": ""}}]
    said = {"role": "assistant", "content": "", "tool_calls": empty}
    assert '"arguments": {}' in ChatTemplate(QWEN_2_5).render([ASKED, said])


def test_developer_is_system() -> None:
    """OpenAI's newer word for the same role."""
    for name in ("qwen2.5", "llama3.1"):
        template = ChatTemplate(TEMPLATES[name])
        texts = [
            template.render([{"role": role, "content": "Be brief."}, ASKED])
            for role in ("system", "developer")
        ]
        assert texts[0] == texts[1]
        assert "developer" not in texts[1]


WITHOUT = {
    "no mention": "{% for m in messages %}{{ m.content }}{% endfor %}",
    "a mention that prints nothing": "{% if tools %}{% endif %}{{ messages[0].content }}",
    "a comment": "{# tools #}{{ messages[0].content }}",
}


@pytest.mark.parametrize("source", WITHOUT.values(), ids=WITHOUT)
def test_templates_without_tools(source: str) -> None:
    """Tools and calls would be left out silently; so they are refused."""
    template = ChatTemplate(source)
    assert not template.has_tools
    assert template.render([ASKED]) == "Weather?"
    for messages, tools in (([ASKED], definitions()), (CONVERSATION, None)):
        with pytest.raises(PromptError, match=r"^the model's chat template has no tools$"):
            template.render(messages, tools)


def test_calls_in_a_template_without_them() -> None:
    """Where a template has tools, but prints contents only, calls are in the model's words."""
    content = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    phi = "{% if tools %}<|tool_call|>{{ tools | tojson }}{% endif %}" + content
    said = {"role": "assistant", "content": "I look.", "tool_calls": [CALL, CALL]}
    wanted = (
        f"<user>Weather?<assistant>I look.\n<|tool_call|>[{INNER}}}, {INNER}}}]<|/tool_call|>"
        '<tool>{"sky": "blue"}'
    )
    assert ChatTemplate(phi).render([ASKED, said, TOLD]) == wanted
    bare = "{% if tools %}{{ tools | tojson }}{% endif %}" + content
    wanted = f"<user>Weather?<assistant>{INNER}}}\n{INNER}}}"
    assert ChatTemplate(bare).render([ASKED, {**said, "content": None}]) == wanted
    for text in FORMATS.values():
        shown = ChatTemplate(text + bare).render([said])
        tools = read_tools([WEATHER])
        assert tools is not None
        calls = split_calls(shown.split("I look.\n")[1], tools.for_template(text))[1]
        assert [call.parsed for call in calls] == [json.loads(ARGUMENTS)] * 2


def test_a_template_that_refuses_tools_says_so() -> None:
    """Its own words count where it raises an exception for tools."""
    source = "{% if tools %}{{ raise_exception('no tools here') }}{% endif %}x"
    with pytest.raises(PromptError, match="no tools here"):
        ChatTemplate(source).render([ASKED], definitions())


def test_a_template_may_refuse_calls() -> None:
    """Llama 3.1 takes one call, Mistral ids of nine letters."""
    said: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}
    with pytest.raises(PromptError, match="single tool-calls"):
        ChatTemplate(LLAMA_3_1).render([ASKED, said])
    said = {"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": "call_1"}]}
    with pytest.raises(PromptError, match="length 9"):
        ChatTemplate(MISTRAL).render([ASKED, said])


@pytest.fixture
def hurry() -> Iterator[None]:
    """Let threads take turns very often."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hurry")
def test_threads_render_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets its own text and a whole budget, from one template."""
    monkeypatch.setattr(templates, "_MAX_WORK", 2100)
    template = ChatTemplate("{% for i in range(2000) %}{% endfor %}{{ messages[0].content }}")
    found: dict[int, set[str]] = {}

    def render(number: int) -> None:
        message = {"role": "user", "content": str(number)}
        found[number] = {template.render([message]) for _ in range(20)}

    threads = [threading.Thread(target=render, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: {str(number)} for number in range(8)}
