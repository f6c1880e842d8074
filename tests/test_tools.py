"""What a request says about tools: what is read, and what is refused with which words."""

from __future__ import annotations

import re
from typing import Any

import pytest

from eftlocal.errors import UsageError
from eftlocal.toolcalls import ToolFormat, is_deep, read_tools
from eftlocal.toolcalls.formats import DEEPSEEK, FUNCTION, HERMES, LLAMA, MISTRAL

from .tool_data import FORMATS, STOP, TOOLS, WEATHER
from .tool_templates import TEMPLATES


def named(name: object) -> dict[str, Any]:
    """A tool_choice for one function."""
    return {"type": "function", "function": {"name": name}}


def deep(levels: int) -> dict[str, Any]:
    """Nested objects."""
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"properties": value}
    return value


def tool(**function: Any) -> dict[str, Any]:
    """A tool with the name f and more."""
    return {"type": "function", "function": {"name": "f", **function}}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no list": ({"tools": {"a": 1}}, "tools is not a list"),
    "a text": ({"tools": "weather"}, "tools is not a list"),
    "too many": ({"tools": [WEATHER] * 129}, "there are 129 tools; at most 128"),
    "no object": ({"tools": [WEATHER, "x"]}, "tools[1] is not an object"),
    "other type": ({"tools": [{"type": "web_search"}]}, "tools[0] has type 'web_search'; only"),
    "no function": ({"tools": [{"type": "function"}]}, "tools[0] has no function"),
    "no name": ({"tools": [{"function": {}}]}, "tools[0] has the name None; use 1 to 128"),
    "bad name": ({"tools": [tool(name='a"b')]}, "tools[0] has the name 'a\"b'; use"),
    "a line end": ({"tools": [tool(name="a\n")]}, "tools[0] has the name 'a\\n'; use"),
    "long name": ({"tools": [tool(name="n" * 129)]}, "tools[0] has the name 'nnnn"),
    "description": ({"tools": [tool(description=1)]}, "the description of tools[0] is not a text"),
    "a list as schema": ({"tools": [tool(parameters=[])]}, "the parameters of tools[0] are not"),
    "a schema of texts": (
        {"tools": [tool(parameters={"type": "string"})]},
        "the parameters of tools[0] are not a JSON schema of type object",
    ),
    "deep": ({"tools": [tool(parameters=deep(60_000))]}, "tools[0] is nested too deep"),
    "twice": ({"tools": [STOP, WEATHER, STOP]}, "two tools have the name 'stop'"),
    "choice": ({"tools": TOOLS, "choice": "any"}, "tool_choice = 'any' is not allowed; use none"),
    "deep choice": ({"tools": TOOLS, "choice": named(deep(60_000))}, "tool_choice = {"),
    "unknown function": ({"tools": TOOLS, "choice": named("go")}, "tool_choice names 'go', which"),
    "required without tools": ({"tools": [], "choice": "required"}, "tool_choice asks for a call"),
    "named without tools": ({"tools": None, "choice": named("go")}, "tool_choice asks for a call"),
    "parallel": ({"tools": TOOLS, "parallel": 1}, "parallel_tool_calls = 1 is not allowed; use"),
}


@pytest.mark.parametrize(("given", "wanted"), REFUSED.values(), ids=REFUSED)
def test_refused(given: dict[str, Any], wanted: str) -> None:
    """One short line that names what is wrong."""
    with pytest.raises(UsageError, match=f"^{re.escape(wanted)}") as caught:
        read_tools(**given)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_what_templates_get() -> None:
    """The keys that models know, whatever else was given; empty parameters where none were."""
    tools = read_tools([{**WEATHER, "cache": 1}, tool(strict=True)])
    assert tools is not None
    empty = {"type": "object", "properties": {}}
    assert tools.definitions == (WEATHER, tool(description="", parameters=empty))
    assert tools.names == {"weather", "f"}
    assert (tools.choice, tools.parallel, tools.is_forced) == ("auto", True, False)


def test_choices() -> None:
    """None means auto; none, or no tools, gives nothing at all; a name may be any word."""
    assert read_tools(None) is read_tools([]) is read_tools(TOOLS, "none") is None
    assert read_tools(None, "auto", False) is None
    required = read_tools(TOOLS, "required", False)
    assert required is not None
    assert (required.is_forced, required.parallel) == (True, False)
    assert required.names == {"weather", "stop"}
    one = read_tools([*TOOLS, tool(name="none")], named("none"))
    assert one is not None
    assert one.is_forced
    assert one.names == {"none"}


def test_depth_without_recursion() -> None:
    """The bound is exact, and any depth can be asked about."""
    assert [is_deep(deep(levels), 3) for levels in (0, 3, 4, 5)] == [False, False, True, True]
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    assert is_deep(value)


def test_formats_follow_from_templates() -> None:
    """Templates of the shapes that models have, and sources that only name a marker."""
    found = {name: ToolFormat.of_template(source) for name, source in TEMPLATES.items()}
    assert {name: form.syntaxes for name, form in found.items()} == {
        "qwen2.5": (HERMES,),
        "qwen3": (HERMES,),
        "hermes": (HERMES,),
        "llama3.1": (LLAMA,),
        "llama3.2": (),
        "mistral": (MISTRAL,),
    }
    assert {name for name, form in found.items() if form.key == "parameters"} == {
        "llama3.1",
        "llama3.2",
    }
    assert [name for name, form in found.items() if form.short_ids] == ["mistral"]
    assert ToolFormat.of_template(FORMATS["function"]).syntaxes == (FUNCTION,)
    assert ToolFormat.of_template(FORMATS["deepseek"] + "```json").syntaxes == (DEEPSEEK,)
    assert ToolFormat.of_template("{{ messages }}") == ToolFormat()
