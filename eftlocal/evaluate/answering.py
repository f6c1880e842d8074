"""Prompts -> replies of a system, as a piece of work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .. import Completion, FusedModel
from ..batch import completions
from .judging import Reply
from .store import Record, Store, digest
from .systems import System
from .work import Loader, records

Message = Mapping[str, str]
Conversation = tuple[Message, ...]
"""The messages that a reply is wanted for."""


@dataclass(frozen=True)
class Answering:
    """Replies of a system, one per conversation.

    A record has "text", "finish_reason", "tokens" (ids), "alphas" (per token one per expert).

    Attributes:
        system: what answers.
        conversations: what is asked.
    """

    system: System
    conversations: Sequence[Conversation]

    @property
    def title(self) -> str:
        """The system's."""
        return self.system.title

    @property
    def items(self) -> Sequence[str]:
        """A name per conversation."""
        return [name_of(one) for one in self.conversations]

    @property
    def content(self) -> Record:
        """The system's."""
        return {"kind": "answers", **self.system.content}

    @property
    def options(self) -> Mapping[str, Any]:
        """Of each reply: the system's."""
        return self.system.options

    def run(self, missing: Sequence[int], loader: Loader) -> Iterator[tuple[int, Record]]:
        """Ask what has not been asked yet.

        Raises:
            EftlocalError: for the first conversation that cannot be answered.
        """
        model = loader.get(self.system.models)
        jobs = [partial(model.prepare_chat, self.conversations[i], **self.options) for i in missing]
        for index, completion in completions(model, jobs):
            yield missing[index], self.record(model, completion)

    def record(self, model: FusedModel, completion: Completion) -> Record:
        """What is kept of a reply."""
        return {
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "tokens": list(completion.tokens),
            "alphas": [list(alpha) for alpha in completion.alphas],
        }


def name_of(conversation: Conversation) -> str:
    """A name for a conversation."""
    return digest(list(map(dict, conversation)))


def ask(text: str) -> Conversation:
    """A conversation of one question."""
    return ({"role": "user", "content": text},)


def replies(work: Answering, store: Store) -> list[Reply]:
    """The replies of a work that has been performed."""
    return [Reply(r["text"], r["finish_reason"] == "stop") for r in records(work, store)]
