"""Structured output: a JSON schema, regex or grammar as a constraint on generated tokens.

`Compiler` makes constraints for one vocabulary; `check` finds what is wrong without one. Nothing
here imports llguidance before it is needed.
"""

from __future__ import annotations

from .compiling import Compiler, Thinking, check

__all__ = ["Compiler", "Thinking", "check"]
