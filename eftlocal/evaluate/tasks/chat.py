"""Conversations of a harness as the text that it wants, and as the prompts that models get."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ... import ContextFull, FusedModel, PromptError
from .requests import Ids, Prompts

Message = Mapping[str, str]


class ChatPrompt(str):
    """A conversation in the tuned model's chat template, which remembers what it came from.

    The harness wants a text; the models of an entry may each get another one, so that the text
    alone would not do.

    Attributes:
        messages: the conversation, without the reply that was begun.
        begun: the beginning of the reply, "" where the models write all of it.
    """

    messages: tuple[Message, ...]
    begun: str

    @classmethod
    def of(cls, text: str, messages: Sequence[Message], begun: str) -> ChatPrompt:
        """A prompt of this text."""
        prompt = cls(text + begun)
        prompt.messages, prompt.begun = tuple(messages), begun
        return prompt


@dataclass
class Changes:
    """How often requests had to be changed to be possible.

    Attributes:
        truncated: requests whose prompt was cut from the left, so that it fits the context.
        shortened: conversations that lost their first examples for the same reason.
        merged: conversations whose system text was put before the first user's, because the
            template has no place for it.
    """

    truncated: int = 0
    shortened: int = 0
    merged: int = 0

    def to_json(self) -> dict[str, int]:
        """The three numbers."""
        return {"truncated": self.truncated, "shortened": self.shortened, "merged": self.merged}


class Conversations:
    """Turns conversations into prompts of one model.

    Args:
        model: whose template, or templates, are used.
        changes: counts what had to be changed.
    """

    def __init__(self, model: FusedModel, changes: Changes) -> None:
        self._model = model
        self._changes = changes
        self._tuned = model.engine.ensemble.roles.experts[0][0]

    def render(self, messages: Sequence[Message], begun: bool) -> ChatPrompt:
        """The text of a conversation; `begun` says that its last message begins the reply.

        Raises:
            PromptError: where there is no chat template, or it refuses the conversation.
            ContextFull: where even the question alone does not fit.
        """
        start = messages[-1]["content"] if begun else ""
        head = [dict(message) for message in (messages[:-1] if begun else messages)]
        head, prompts = self._fitting(head)
        return ChatPrompt.of(self._text(prompts[self._tuned]), head, start)

    def _fitting(self, messages: list[dict[str, str]]) -> tuple[list[dict[str, str]], Prompts]:
        """The conversation as the template takes it, without first turns that do not fit."""
        whole = messages
        while True:
            try:
                prompts = self._prompts(messages)
            except ContextFull:
                n_system = sum(message["role"] == "system" for message in messages)
                if len(messages) - n_system < 3:
                    raise
                messages = [*messages[:n_system], *messages[n_system + 2 :]]
                continue
            except PromptError:
                if messages[0]["role"] != "system" or len(messages) < 2:
                    raise
                first, second, *rest = messages
                joined = f"{first['content']}\n\n{second['content']}"
                messages = whole = [{**second, "content": joined}, *rest]
                self._changes.merged += 1
                continue
            self._changes.shortened += len(messages) < len(whole)
            return messages, prompts

    def _prompts(self, messages: Sequence[Message]) -> Prompts:
        return self._model.prepare_chat(messages, temperature=0.0).request.prompts

    def _text(self, ids: Ids) -> str:
        """The text of a prompt, markers included; BOS is left out, as prompts get it again."""
        vocabulary = self._model.vocabulary
        if ids[0] == vocabulary.bos and vocabulary.add_bos:
            ids = ids[1:]
        text = b"".join(vocabulary.piece(token, special=True) for token in ids)
        return text.decode("utf-8", "replace")

    def prompts(self, prompt: ChatPrompt) -> Prompts:
        """What the models get: one prompt where all get the same, else one per context."""
        found = self._prompts(prompt.messages)
        if prompt.begun:
            found = tuple((*ids, *self.rest(str(prompt), prompt.begun)) for ids in found)
        return found[:1] if len(set(found)) == 1 else found

    def rest(self, text: str, ending: str) -> Ids:
        """Token ids of the end of a text, where the rest of it is tokens already.

        An end that has none of its own, as it merges into the token before, is tokenized alone.
        """
        start = len(self._ids(text.removesuffix(ending)))
        return tuple(self._ids(text)[start:]) or going_on(self._ids, ending)

    def _ids(self, text: str) -> list[int]:
        return self._model.vocabulary.tokenize(text, add_special=False, parse_special=True)


def going_on(tokenize: Callable[[str], list[int]], text: str) -> Ids:
    """Token ids of a text that goes on within a line; at least one for a text that is not empty.

    Some tokenizers put a space before a text: a line end takes it, and is left out again.
    """
    head, whole = tokenize("\n"), tokenize("\n" + text)
    rest = whole[len(head) :] if whole[: len(head)] == head else []
    return tuple(rest or tokenize(text))
