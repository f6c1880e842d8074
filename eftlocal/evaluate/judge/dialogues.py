"""Prompts of several turns -> the replies of a system, as a piece of work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from ... import Completion, FusedModel
from ...batch import Outcome, run_batch
from ...errors import ContextFull
from ...stream import Prepared
from ..prompt_sets import Message, Prompt
from ..store import Record, Store, digest
from ..systems import PLAIN, System
from ..work import Loader, records

DEFAULTS: Mapping[str, Any] = {**PLAIN, "max_tokens": 1024}
"""Options of replies where neither the model entry nor the user says otherwise; the limit is
MT-Bench's."""


@dataclass(frozen=True)
class Exchange:
    """One turn of a prompt, and what a system replied.

    Attributes:
        prompt: what was asked.
        turn: from 0.
        messages: everything up to this turn's reply, which is left out.
        reply: without a <think> block.
        error: why there is no reply; "" where there is one.
    """

    prompt: Prompt
    turn: int
    messages: tuple[tuple[str, str], ...]
    reply: str
    error: str = ""


@dataclass(frozen=True)
class Dialogues:
    """Replies of a system to every turn of every prompt.

    A record has "text", "answer" (the text without its <think> block) and "finish_reason"; or
    "error" where the prompt does not fit the context.

    Attributes:
        system: what answers.
        prompts: what is asked.
        store: where this work's own records are: a turn follows the replies before it.
    """

    system: System
    prompts: Sequence[Prompt]
    store: Store = field(compare=False)

    @property
    def title(self) -> str:
        """The system's."""
        return self.system.title

    @cached_property
    def _places(self) -> list[tuple[int, int]]:
        """(prompt, turn) of every item, first turns first."""
        most = max(len(prompt.turns) for prompt in self.prompts)
        return [
            (i, turn)
            for turn in range(most)
            for i, prompt in enumerate(self.prompts)
            if turn < len(prompt.turns)
        ]

    @cached_property
    def items(self) -> Sequence[str]:
        """A name for each turn, which says all that the user said up to it."""
        return [self._name(*place) for place in self._places]

    def _name(self, i: int, turn: int) -> str:
        prompt = self.prompts[i]
        return digest([list(map(list, prompt.opening)), list(prompt.turns[: turn + 1])])

    @cached_property
    def content(self) -> Record:
        """The system's."""
        return {"kind": "dialogues", **self.system.content}

    def run(self, missing: Sequence[int], loader: Loader) -> Iterator[tuple[int, Record]]:
        """Ask what has not been asked yet, one turn of all prompts after the other.

        Raises:
            EftlocalError: where the models fail, or cannot have conversations.
        """
        model = loader.get(self.system.models)
        known: dict[str, Record] = {}
        with self.store.shelf(self.content) as shelf:
            known = {name: found for name in self.items if (found := shelf.get(name))}
        for turn in sorted({self._places[index][1] for index in missing}):
            chosen = [index for index in missing if self._places[index][1] == turn]
            for index, record in self._turn(model, chosen, known):
                known[self.items[index]] = record
                yield index, record

    def _turn(
        self, model: FusedModel, chosen: Sequence[int], known: dict[str, Record]
    ) -> Iterator[tuple[int, Record]]:
        asked = []
        for index in chosen:
            messages, error = self._messages(*self._places[index], known)
            if error:
                yield index, {"error": error}
            else:
                asked.append((index, [{"role": r, "content": c} for r, c in messages]))
        jobs = [partial(_prepare, model, messages, self.system) for _, messages in asked]
        for number, outcome in run_batch(model, jobs):
            yield asked[number][0], _record(outcome)

    def _messages(
        self, i: int, turn: int, known: dict[str, Record]
    ) -> tuple[list[tuple[str, str]], str]:
        """What a turn's reply is wanted for, and why there can be none."""
        prompt = self.prompts[i]
        messages = list(prompt.opening)
        for earlier in range(turn):
            record = known[self._name(i, earlier)]
            if "error" in record:
                return messages, "an earlier turn has no reply"
            messages += [("user", prompt.turns[earlier]), ("assistant", record["answer"])]
        return [*messages, ("user", prompt.turns[turn])], ""

    def exchanges(self) -> list[Exchange]:
        """All turns with their replies, once the work has been performed, prompt by prompt."""
        known = dict(zip(self.items, records(self, self.store), strict=True))
        found = []
        for i, prompt in enumerate(self.prompts):
            for turn in range(len(prompt.turns)):
                record = known[self._name(i, turn)]
                messages = tuple(self._messages(i, turn, known)[0])
                reply = record.get("answer", "")
                found.append(Exchange(prompt, turn, messages, reply, record.get("error", "")))
        return found


def _prepare(model: FusedModel, messages: list[Message], system: System) -> Prepared:
    return model.prepare_chat(messages, **system.options)


def _record(outcome: Outcome) -> Record:
    if isinstance(outcome, Completion):
        return {
            "text": outcome.text,
            "answer": outcome.answer,
            "finish_reason": outcome.finish_reason,
        }
    # That is about one prompt; others can be answered.
    if isinstance(outcome, ContextFull):
        return {"error": " ".join(str(outcome).split())}
    raise outcome
