"""Tools, templates of the shapes that models have, and replies in their formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eftlocal.toolcalls import Tools, read_tools
from eftlocal.toolcalls.formats import DEEPSEEK

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
STOP = {"type": "function", "function": {"name": "stop"}}
TOOLS = [WEATHER, STOP]
FORMATS = {
    "hermes": "<tool_call>",
    "llama": "<|python_tag|>",
    "bare": "",
    "mistral": "[TOOL_CALLS]",
    "function": "<function=",
    "phi": "<|tool_call|>",
    "coder": "<tool_call> <function= <parameter=",
    "deepseek": "".join(DEEPSEEK.opens),
}
"""Format -> what its template holds."""


def tools_of(source: str, choice: Any = None) -> Tools:
    """The tools, as a template's source says that they are called."""
    tools = read_tools(TOOLS, choice)
    assert tools is not None
    return tools.for_template(source)


_OSLO = {"city": "Oslo"}
_SEP = DEEPSEEK.separator
Reply = tuple[str, str, str, Sequence[tuple[str, Any]]]

REPLIES: dict[str, Reply] = {
    "text before and behind": (
        "hermes",
        'I look.\n<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>\nOk',
        "I look.\nOk",
        [("weather", _OSLO)],
    ),
    "a name behind the arguments": (
        "hermes",
        '<tool_call>{"arguments": {"city": "Oslo"}, "name": "weather"}</tool_call>',
        "",
        [("weather", _OSLO)],
    ),
    "arguments as a text": (
        "hermes",
        '<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}</tool_call>',
        "",
        [("weather", _OSLO)],
    ),
    "no arguments": ("hermes", '<tool_call>{"name": "stop"}</tool_call>', "", [("stop", {})]),
    "null as arguments": ("bare", '{"name": "stop", "parameters": null}', "", [("stop", {})]),
    "ids and types": (
        "mistral",
        '[TOOL_CALLS][{"id": "abc", "name": "weather", "arguments": {"city": "Oslo"}, "type": 1}]',
        "",
        [("weather", _OSLO)],
    ),
    "newer Mistral": (
        "mistral",
        '[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]stop[CALL_ID]123[ARGS]{}',
        "",
        [("weather", _OSLO), ("stop", {})],
    ),
    "newer DeepSeek": (
        "deepseek",
        f'{DEEPSEEK.opens[0]}weather{_SEP}{{"city": "Oslo"}}{DEEPSEEK.closes[0]}'
        f"{DEEPSEEK.opens[1]}stop{_SEP}{{}}{DEEPSEEK.closes[0]}{DEEPSEEK.closes[1]}",
        "",
        [("weather", _OSLO), ("stop", {})],
    ),
    "Llama without a marker": (
        "llama",
        '\n{"name": "weather", "parameters": {"city": "Oslo"}}',
        "",
        [("weather", _OSLO)],
    ),
    "no markers, though the model has them": (
        "hermes",
        '{"name": "weather", "arguments": {"city": "Oslo"}}',
        "",
        [("weather", _OSLO)],
    ),
    "a list without markers": (
        "bare",
        '[{"name": "stop", "arguments": {}}]',
        "",
        [("stop", {})],
    ),
    "a marker that is not closed": (
        "hermes",
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n',
        "",
        [("weather", _OSLO)],
    ),
    "a brace too few": (
        "hermes",
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}\n</tool_call>',
        "",
        [("weather", _OSLO)],
    ),
    "line ends within a text": (
        "hermes",
        '<tool_call>{"name": "weather", "arguments": {"city": "Os\nlo\t"}}</tool_call>',
        "",
        [("weather", {"city": "Os\nlo\t"})],
    ),
    "a marker twice": (
        "hermes",
        '<tool_call><tool_call>{"name": "stop", "arguments": {}}</tool_call>',
        "<tool_call>",
        [("stop", {})],
    ),
    "Qwen3-Coder": (
        "coder",
        "<tool_call>\n<function=weather>\n<parameter=city>\n12\n</parameter>\n<parameter=days>\n"
        "3\n</parameter>\n<parameter=more>\n[1, null]\n\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=stop>\n</function>\n</tool_call>",
        "",
        [("weather", {"city": "12", "days": 3, "more": [1, None]}), ("stop", {})],
    ),
    "Qwen3-Coder without the outer marker": (
        "coder",
        "I look.\n<function=weather>\n<parameter=city>\nOs\nlo</parameter></function>",
        "I look.",
        [("weather", {"city": "Os\nlo"})],
    ),
    "tags of an unknown function": (
        "coder",
        "<tool_call>\n<function=go>\n</function>\n</tool_call>",
        "<tool_call>\n<function=go>\n</function>\n</tool_call>",
        [],
    ),
    "a marker in a marker": (
        "hermes",
        '<tool_call>{"name": <tool_call>{"name": "stop"}</tool_call>',
        '<tool_call>{"name":',
        [("stop", {})],
    ),
    "an unknown function": (
        "hermes",
        'Hm <tool_call>\n{"name": "go", "arguments": {}}\n</tool_call> so',
        'Hm <tool_call>\n{"name": "go", "arguments": {}}\n</tool_call> so',
        [],
    ),
    "other JSON": (
        "bare",
        '{"name": "weather", "temperature": 3}',
        '{"name": "weather", "temperature": 3}',
        [],
    ),
    "JSON behind text": (
        "bare",
        'So: {"name": "stop", "arguments": {}}',
        'So: {"name": "stop", "arguments": {}}',
        [],
    ),
    "keys without quotes": (
        "hermes",
        '<tool_call>{"name": "weather", "arguments": {city: "Oslo"}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {city: "Oslo"}}</tool_call>',
        [],
    ),
    "code behind Llama's marker": (
        "llama",
        "<|python_tag|>print(1)",
        "<|python_tag|>print(1)",
        [],
    ),
    "another format's marker": (
        "hermes",
        "<function=stop>{}</function>",
        "<function=stop>{}</function>",
        [],
    ),
}
"""Name -> format, reply, its text without calls, its calls."""
