"""Completion of slash commands and their arguments at the prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from ..errors import EftlocalError
from ..registry import THINK
from .commands import COMMANDS, PARAMETERS
from .tables import GENERATION

if TYPE_CHECKING:
    from .session import Session

_FILE_COMMANDS = ("/read", "/save", "/load")


class SlashCompleter(Completer):
    """Completes commands, parameters, entries and files, each with its description."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._paths = PathCompleter(expanduser=True)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """Yield what the text before the cursor may go on with."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, blank, rest = text.partition(" ")
        if blank and name in _FILE_COMMANDS:
            yield from self._paths.get_completions(Document(rest), complete_event)
            return
        word = text.rpartition(" ")[2]
        for choice, meaning in self._choices(name, blank, rest).items():
            if choice.startswith(word):
                yield Completion(choice, -len(word), display_meta=meaning)

    def _choices(self, name: str, blank: str, rest: str) -> dict[str, str]:
        """Return the words possible here with their descriptions."""
        if not blank:
            return {command: item.summary for command, item in COMMANDS.items()}
        if name == "/set":
            return self._settings(rest)
        if name == "/model" and " " not in rest:
            return self._entries()
        return {}

    def _settings(self, rest: str) -> dict[str, str]:
        words = rest.split(" ")
        if len(words) == 1:
            return {"parameter": "an option of replies", "system": "the system prompt"}
        if len(words) == 2 and words[0] == "parameter":
            settings = self._session.settings
            options = {
                name: f"{getattr(settings, field)}: {GENERATION[field][1]}"
                for name, field in PARAMETERS.items()
            }
            return options | {"think": "What is shown of <think> blocks."}
        if len(words) == 3 and words[:2] == ["parameter", "think"]:
            return dict.fromkeys((*THINK, "default"), "")
        if words[0] == "parameter" and words[1] == "weight":
            return dict.fromkeys((f"{name}=" for name in self._session.model.experts), "an expert")
        if len(words) == 3 and words[0] == "parameter" and words[1] in PARAMETERS:
            kind = GENERATION[PARAMETERS[words[1]]][0]
            return dict.fromkeys((*getattr(kind, "words", ()), "default"), "")
        return {}

    def _entries(self) -> dict[str, str]:
        from ..registry import load_registry

        try:
            entries = load_registry(self._session.arguments.models).entries
        except EftlocalError:
            return {}
        return {name: entry.description for name, entry in entries.items()}
