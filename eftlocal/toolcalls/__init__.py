"""Tools: their definitions in requests, and calls of them in replies. Knows texts only."""

from .formats import Syntax, ToolFormat
from .shapes import write_calls
from .stream import CallDelta, ToolCall, ToolStream, gathered, split_calls
from .tools import Tools, read_tools
from .values import as_object, as_text, is_deep

__all__ = [
    "CallDelta",
    "Syntax",
    "ToolCall",
    "ToolFormat",
    "ToolStream",
    "Tools",
    "as_object",
    "as_text",
    "gathered",
    "is_deep",
    "read_tools",
    "split_calls",
    "write_calls",
]
