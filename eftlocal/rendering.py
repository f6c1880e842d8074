"""Conversations -> text, in the style that an entry states for each of its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import PromptError
from .llama import Weights
from .prompts import Message, plain_transcript
from .reasoning import OPEN
from .templates import ChatTemplate
from .toolcalls import Tools


class Renderer:
    """Writes conversations as text; any thread may use it.

    A style is "template" (of the tuned model's file), "plain", or a Jinja file.

    Args:
        tuned: the weights whose chat template and markers are used.
        style: of the tuned model; it says how tools are called.
    """

    def __init__(self, tuned: Weights, style: str | Path) -> None:
        self._tuned = tuned
        self._style = style
        self._templates: dict[tuple[str | Path, bool], ChatTemplate] = {}

    def text(
        self,
        style: str | Path,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """A conversation in one of the styles, up to where the reply begins.

        Raises:
            PromptError: where there is no template, or it refuses the conversation or the tools.
        """
        if style == "plain":
            return plain_transcript(messages, tools)
        return self._template(style, bool(tools)).render(messages, tools)

    def with_format(self, tools: Tools) -> Tools:
        """Tools, with the format of calls that the tuned model's template shows.

        Raises:
            PromptError: where the tuned model reads plain text, which says nothing of calls.
        """
        if self._style == "plain":
            raise PromptError("the model reads plain text, without a chat template for tools")
        return tools.for_template(self._template(self._style, True).source)

    @property
    def source(self) -> str | None:
        """The tuned model's chat template; None where it has none or reads plain text."""
        try:
            return None if self._style == "plain" else self._template(self._style, False).source
        except PromptError:
            return None

    @property
    def may_think(self) -> bool:
        """Whether the tuned model's template knows <think> blocks."""
        return OPEN in (self.source or "")

    def _template(self, style: str | Path, with_tools: bool) -> ChatTemplate:
        key = style, with_tools
        if key not in self._templates:
            vocabulary = self._tuned.vocabulary
            markers = [
                vocabulary.piece(token, special=True).decode() if token >= 0 else ""
                for token in (vocabulary.bos, vocabulary.eos)
            ]
            self._templates[key] = ChatTemplate(self._source(style, with_tools), *markers)
        return self._templates[key]

    def _source(self, style: str | Path, with_tools: bool) -> str:
        if isinstance(style, Path):
            try:
                return style.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise PromptError(f"the chat template {style} cannot be read: {error}") from error
        # Some files have a second template, only for tools.
        source = (with_tools and self._tuned.chat_template("tool_use")) or None
        source = source or self._tuned.chat_template()
        if not source:
            raise PromptError(
                f"{self._tuned.path} has no chat template; use `complete`, "
                "or a tuned model (for an adapter: a reference) that has one, or "
                "`templates` in a model entry"
            )
        return source
