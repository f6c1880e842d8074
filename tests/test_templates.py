"""Chat templates: those of real families, the sandbox, and its bounds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

import pytest

from eftlocal import templates
from eftlocal.errors import PromptError
from eftlocal.prompts import Message
from eftlocal.templates import ChatTemplate

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi {{ 7 * 6 }} é"}
REPLY = {"role": "assistant", "content": " Hello. "}
AGAIN = {"role": "user", "content": "And\nyou?"}

CHATML = """{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}
{%- endfor %}
    {% if add_generation_prompt %}
{{ '<|im_start|>assistant\n' }}
{%- endif %}"""

LLAMA_3 = """{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if tools is not none %}{{ raise_exception('no tools here') }}{% endif %}
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' ~ system_message ~ eos_token }}
{%- for message in messages %}
    {%- set head = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' %}
    {{- head + message['content'] | trim + eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}"""

LLAMA_2 = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}
{% set start = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}
{% else %}{% set loop_messages = messages %}{% set start = '' %}{% endif %}
{% for message in loop_messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}
{% set content = start + message['content'] if loop.first else message['content'] %}
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
{%- else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""

TOOLS = """{%- set ns = namespace(users=0) -%}
{%- macro head(role, name='') -%}<{{ role }}{{ ' ' ~ name if name }}>{%- endmacro -%}
Today: {{ strftime_now('%Y') }}
{% for message in messages recursive %}
  {%- if message.role == 'system' %}{% continue %}{% endif %}
  {%- if message.role == 'user' %}{% set ns.users = ns.users + 1 %}{% endif %}
  {%- if ns.users > 1 %}{% break %}{% endif %}
  {{- head(message.role, name='%d/%d' % (loop.index, loop.length)) }}
  {{- message | tojson(ensure_ascii=False) }}{{ {'b': [1], 'a': 2} | tojson(indent=1) }}
  {%- generation %} ok{% endgeneration %}
{% else %}nobody{% endfor %}
{{- documents is none and nothing is undefined }} {{ messages | map(attribute='role') | join }}"""

RENDERED: dict[str, tuple[str, Sequence[Message], str]] = {
    "ChatML": (
        CHATML,
        [SYSTEM, USER, REPLY, AGAIN],
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi {{ 7 * 6 }} é<|im_end|>\n"
        "<|im_start|>assistant\n Hello. <|im_end|>\n<|im_start|>user\nAnd\nyou?<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    "Llama 3": (
        LLAMA_3,
        [SYSTEM, USER, REPLY, AGAIN],
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.</s>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi {{ 7 * 6 }} é</s>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello.</s>"
        "<|start_header_id|>user<|end_header_id|>\n\nAnd\nyou?</s>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "Llama 2": (
        LLAMA_2,
        [SYSTEM, USER, REPLY, AGAIN],
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi {{ 7 * 6 }} é [/INST] Hello. </s>"
        "<s>[INST] And\nyou? [/INST]",
    ),
    "macros, JSON, loop controls": (
        TOOLS,
        [SYSTEM, USER, AGAIN],
        f"Today: {datetime.now():%Y}\n"
        '<user 2/3>{"role": "user", "content": "Hi {{ 7 * 6 }} é"}'
        '{\n "b": [\n  1\n ],\n "a": 2\n} ok'
        "True systemuseruser",
    ),
}


@pytest.mark.parametrize(("source", "messages", "wanted"), RENDERED.values(), ids=RENDERED)
def test_templates_of_real_families(source: str, messages: Sequence[Message], wanted: str) -> None:
    """What transformers renders, twice, from messages that stay as they are."""
    template = ChatTemplate(source, bos="<s>", eos="</s>")
    before = [dict(message) for message in messages]
    assert template.render(messages) == template.render(messages) == wanted
    assert list(messages) == before


def refusal(source: str, messages: Sequence[Message] = (USER,)) -> str:
    """The one-line message of the PromptError that a template must end in."""
    with pytest.raises(PromptError) as caught:
        ChatTemplate(source).render(messages)
    message = str(caught.value)
    assert message.startswith("the chat template ")
    assert "\n" not in message
    return message


def test_a_template_may_refuse() -> None:
    """raise_exception becomes a PromptError with the template's own words."""
    wanted = "the chat template refuses this conversation: Roles must alternate user/assistant"
    assert refusal(LLAMA_2, [USER, AGAIN]) == wanted


BROKEN = {
    "syntax": ("{% for %}", "cannot be read: Expected an expression"),
    "unknown tag": ("{% while 1 %}", "cannot be read: Encountered unknown tag"),
    "unknown filter": ("{{ 1 | nofilter }}", "cannot be read: No filter named"),
    "too deep": ("{{" + "(" * 5000, "cannot be read: maximum recursion depth"),
    "undefined": ("{{ no.such.thing }}", "refuses this conversation: 'no' is undefined"),
    "type": ("{{ 1 + 'a' }}", "refuses this conversation: unsupported operand"),
    "zero": ("{{ 1 // 0 }}", "refuses this conversation: integer division"),
    "files": ("{% include 'x' %}", "refuses this conversation: no loader"),
    "two lines": ("{{ raise_exception('a\nb') }}", "refuses this conversation: a b"),
}


@pytest.mark.parametrize(("source", "wanted"), BROKEN.values(), ids=BROKEN)
def test_broken_templates(source: str, wanted: str) -> None:
    """Whatever a template does wrong is a PromptError of one line."""
    assert wanted in refusal(source)


ESCAPES = {
    "class": "{{ ''.__class__ }}",
    "item": "{{ ''['__class__'] }}",
    "filter": "{{ '' | attr('__class__') }}",
    "format": "{{ '{0.__class__}'.format(1) }}",
    "format_map": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "map": "{{ messages | map(attribute='__class__') | list }}",
    "subclasses": "{{ ().__class__.__base__.__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__ }}",
    "function": "{{ raise_exception.__globals__ }}",
    "code": "{{ strftime_now.__code__ }}",
    "template": "{{ self._TemplateReference__context }}",
    "frame": "{% macro m() %}{% endmacro %}{{ m._func }}",
    "messages": "{{ messages.append(1) }}",
    "message": "{{ messages[0].update(role='x') }}",
    "branch": "{% if ''.__class__ %}{% endif %}",
}


@pytest.mark.parametrize("source", ESCAPES.values(), ids=ESCAPES)
def test_the_sandbox_refuses_to_be_left(source: str) -> None:
    """Internals of Python objects and changes of the messages are refused, not silently empty."""
    assert re.search(r"attribute '\w+' of '\w+' is not safe", refusal(source))


def repeat(body: str, n: int = 100) -> str:
    """A template that does something n times."""
    return "{% for i in range(" + str(n) + ") %}" + body + "{% endfor %}"


def grow(step: str, start: str = "'ab'") -> str:
    """A template that applies a step to a value 18 times, printing nothing."""
    return "{% set ns = namespace(x=" + start + ") %}" + repeat("{% set ns.x = " + step + " %}", 18)


# Each would end by itself within seconds, so that a missing bound shows as a missing error.
LONG = {
    "nested loops that print": repeat(repeat("x", 1000), 1000),
    "nested loops that print nothing": repeat(repeat("", 1000), 1000),
    "loops over a list": "{% set r = range(100) | list %}{% for i in r %}{% for j in r %}"
    "{% for k in r %}{% endfor %}{% endfor %}{% endfor %}",
    "a filtered loop": repeat("{% for j in range(1000) if j < 0 %}{% endfor %}", 1000),
    "loops over a string": "{% set s = 'x' * 100 %}{% for i in s %}{% for j in s %}"
    "{% for k in s %}{% endfor %}{% endfor %}{% endfor %}",
    "a loop in a macro": "{% macro m() %}" + repeat(repeat("", 1000), 1000) + "{% endmacro %}"
    "{% set a = m() %}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{% set a = f(n - 1) %}"
    "{% set b = f(n - 1) %}{% endif %}{% endmacro %}{% set a = f(16) %}",
    "a recursive loop": "{% for x in [1, 2] recursive %}{% if loop.depth < 16 %}"
    "{{ loop([1, 2]) }}{% endif %}{% endfor %}",
    "a long text printed often": repeat("L" * 9999),
    "a long value printed often": "{% set s = 'x' * 9999 %}" + repeat("{{ s }}"),
    "the same in a macro": "{% set s = 'x' * 9999 %}{% macro m() %}"
    + repeat("{{ s }}", 33)
    + "{% endmacro %}{% set a = m() %}",
    "doubling with +": grow("ns.x + ns.x"),
    "doubling with ~": grow("ns.x ~ ns.x"),
    "doubling with *": grow("ns.x * 2"),
    "doubling with a filter": grow("ns.x | replace('ab', 'abab')"),
    "doubling with a method": grow("ns.x.replace('ab', 'abab')"),
    "doubling a list": grow("ns.x + ns.x", "[1]"),
    "squaring": grow("ns.x * ns.x", "3"),
    "squaring by power": grow("ns.x ** 2", "3"),
    "a giant power": "{{ (9 ** 100000) % 7 }}",
    "a giant string": "{{ ('a' * 10 ** 7) | length }}",
    "a giant string the other way round": "{{ (10 ** 7 * 'a') | length }}",
    "a giant list": "{{ ([1] * 10 ** 7) | length }}",
}


@pytest.mark.parametrize("source", LONG.values(), ids=LONG)
def test_long_templates_are_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time and memory are bounded whether or not anything is printed, without the clock."""
    monkeypatch.setattr(templates, "_MAX_WORK", 20_000)
    monkeypatch.setattr(templates, "_MAX_SECONDS", 1e9)
    assert refusal(source) == "the chat template runs too long or prints too much"


def test_the_clock_ends_what_the_budget_would_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow machine it is the deadline that stops a template."""
    assert templates._MAX_SECONDS <= 5
    monkeypatch.setattr(templates, "_MAX_SECONDS", 0.05)
    monkeypatch.setattr(templates, "_MAX_WORK", 10**12)
    assert "runs too long" in refusal(repeat(repeat("", 2000), 2000))


def test_each_rendering_has_the_whole_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one rendering has spent does not count against the next."""
    monkeypatch.setattr(templates, "_MAX_WORK", 150)
    template = ChatTemplate(repeat("", 100))
    for _ in range(3):
        assert template.render([USER]) == ""


def test_long_conversations_are_within_the_bounds() -> None:
    """2,000 messages, 4 MB of text: more than any context holds."""
    messages = [{"role": role, "content": "word " * 400} for role in ("user", "assistant")] * 1000
    assert len(ChatTemplate(LLAMA_3).render(messages)) > 4_000_000
