"""What a request says about tools: their definitions, which may be called, and how often."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from reprlib import repr as brief
from typing import Any

from ..errors import UsageError
from .formats import MarkerVocabulary, ToolFormat
from .grammar import ForcedCall, forced_grammar
from .values import is_deep

MAX_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_NAME_RULE = "1 to 128 letters, digits and _ . : / -"


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of one request.

    Attributes:
        definitions: {"type": "function", "function": {"name", "description", "parameters"}} each.
        choice: "auto", "required", or the name of the function that has to be called.
        is_named: whether it is such a name, which may be any word.
        parallel: whether a reply may have several calls.
        format: how the model writes calls; `for_template` finds it out.
    """

    definitions: tuple[Mapping[str, Any], ...]
    choice: str = "auto"
    is_named: bool = False
    parallel: bool = True
    format: ToolFormat = field(default_factory=ToolFormat)

    @property
    def names(self) -> frozenset[str]:
        """Names of the functions that may be called."""
        return frozenset(self.schemas)

    @property
    def schemas(self) -> dict[str, Mapping[str, Any]]:
        """JSON schemas of their arguments, by name."""
        functions = [tool["function"] for tool in self.definitions]
        return {
            function["name"]: function["parameters"]
            for function in functions
            if not self.is_named or function["name"] == self.choice
        }

    @property
    def is_forced(self) -> bool:
        """Whether the reply has to be a call."""
        return self.is_named or self.choice == "required"

    def for_template(self, source: str) -> Tools:
        """The same tools in the format that a chat template's source shows."""
        return replace(self, format=ToolFormat.of_template(source))

    def visible(self, vocabulary: MarkerVocabulary) -> frozenset[int]:
        """Ids of control tokens that calls are written with; as text they would be empty."""
        return self.format.control_tokens(vocabulary)

    def grammar(self, vocabulary: MarkerVocabulary) -> str:
        """A Lark grammar of llguidance that allows nothing but calls; see `forced_grammar`."""
        call = ForcedCall(self.schemas, self.format, self.parallel and not self.is_named)
        return forced_grammar(call, vocabulary)


def read_tools(tools: object, choice: object = None, parallel: object = None) -> Tools | None:
    """Check OpenAI's `tools`, `tool_choice` and `parallel_tool_calls`.

    Args:
        tools: a list of {"type": "function", "function": {...}}, or None.
        choice: "none", "auto", "required", {"type": "function", "function": {"name": ...}}, or
            None, which is "auto".
        parallel: False allows one call a reply; None is True.

    Returns:
        None where there are no tools, or none may be called.

    Raises:
        UsageError: with one line that says what is wrong.
    """
    if parallel is not None and not isinstance(parallel, bool):
        raise UsageError(
            f"parallel_tool_calls = {brief(parallel)} is not allowed; use true or false"
        )
    definitions = _definitions(tools)
    word, is_named = _choice(choice)
    if not definitions:
        if is_named or word == "required":
            raise UsageError("tool_choice asks for a call, but there are no tools")
        return None
    result = Tools(definitions, word, is_named, parallel is not False)
    if is_named and word not in {tool["function"]["name"] for tool in definitions}:
        raise UsageError(f"tool_choice names {word!r}, which is not among the tools")
    return None if word == "none" and not is_named else result


def _definitions(tools: object) -> tuple[Mapping[str, Any], ...]:
    if tools is None:
        return ()
    if not isinstance(tools, Sequence) or isinstance(tools, str | bytes):
        raise UsageError("tools is not a list")
    if len(tools) > MAX_TOOLS:
        raise UsageError(f"there are {len(tools)} tools; at most {MAX_TOOLS} are allowed")
    found = tuple(_definition(tool, f"tools[{place}]") for place, tool in enumerate(tools))
    names = [tool["function"]["name"] for tool in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two tools have the name {name!r}")
    return found


def _definition(tool: object, where: str) -> Mapping[str, Any]:
    if not isinstance(tool, Mapping):
        raise UsageError(f"{where} is not an object")
    if is_deep(tool):
        raise UsageError(f"{where} is nested too deep")
    if tool.get("type", "function") != "function":
        raise UsageError(f"{where} has type {brief(tool['type'])}; only function tools can be used")
    function = tool.get("function")
    if not isinstance(function, Mapping):
        raise UsageError(f"{where} has no function")
    name, text = function.get("name"), function.get("description")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"{where} has the name {brief(name)}; use {_NAME_RULE}")
    if text is not None and not isinstance(text, str):
        raise UsageError(f"the description of {where} is not a text")
    parameters = function.get("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}}
    if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
        raise UsageError(f"the parameters of {where} are not a JSON schema of type object")
    if "type" not in parameters:
        parameters = {"type": "object", **parameters}
    # Templates print a tool as it is, so it has the keys that models were trained with, no others.
    known = {"name": name, "description": text or "", "parameters": parameters}
    return {"type": "function", "function": known}


def _choice(choice: object) -> tuple[str, bool]:
    """A word, or the name of a function and True."""
    if choice is None:
        return "auto", False
    if isinstance(choice, str) and choice in ("none", "auto", "required"):
        return choice, False
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        if isinstance(name, str):
            return name, True
    raise UsageError(
        f"tool_choice = {brief(choice)} is not allowed; use none, auto, required, or "
        '{"type": "function", "function": {"name": ...}}'
    )
