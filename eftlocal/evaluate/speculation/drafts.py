"""Drafted replies beside plain ones: their texts, how drafts fared, and what the clock said."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ... import Completion, FusedModel
from ...batch import completions
from ...sampling import Noise
from ...stream import Prepared
from ..answering import Conversation, name_of
from ..store import Record, digest
from ..systems import Models
from ..work import Loader
from .near_ties import first_difference, gap, largest_shift

PURE: Mapping[str, Any] = {
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Sampling from the fused distribution itself, as in the EFT paper."""

RULES = ("coupled", "rejection")
PLAIN = "off"
Difference = Mapping[str, Any]
Kind = tuple[str, str | int]
"""A rule and a draft."""


@dataclass(frozen=True)
class Replies:
    """What the works below have in common: replies of some models, one per conversation.

    Attributes:
        title: what a progress bar calls it.
        models: what answers.
        options: changes to its generation options; "seed" is mixed with each conversation.
        conversations: what is asked.
    """

    title: str
    models: Models
    options: Mapping[str, Any]
    conversations: Sequence[Conversation]

    @property
    def items(self) -> Sequence[str]:
        """A name per conversation."""
        return [name_of(one) for one in self.conversations]

    def settings(self, index: int, changes: Mapping[str, Any]) -> dict[str, Any]:
        """All options of one reply; no two conversations share their noise."""
        seed = int(digest([self.options["seed"], name_of(self.conversations[index])])[:8], 16)
        return {**PURE, **self.options, **changes, "seed": seed}

    def prepare(self, model: FusedModel, index: int, **changes: Any) -> Prepared:
        """The request for one reply."""
        return model.prepare_chat(self.conversations[index], **self.settings(index, changes))


@dataclass(frozen=True)
class Drafted(Replies):
    """Plain replies, and the same drafted, under both rules of acceptance.

    A record has, rule -> draft ("off", "2", ...) -> "rounds", "drafted", "accepted", "tokens" (a
    number), "shift" (by how much log-probs differ from the plain reply's at most, as far as the
    tokens are the same), and "difference": None where all tokens are.

    Attributes:
        lengths: n of the drafted replies.
    """

    lengths: tuple[int, ...] = (2, 4, 8)

    @property
    def content(self) -> Record:
        """What texts depend on."""
        content = self.models.content({**PURE, **self.options})
        return {"kind": "drafted", "lengths": list(self.lengths), **content}

    def run(self, missing: Sequence[int], loader: Loader) -> Iterator[tuple[int, Record]]:
        """Ask what has not been asked yet; replies that differ are looked into at the end.

        Raises:
            EftlocalError: for the first conversation that cannot be answered.
        """
        model = loader.get(self.models)
        drafts: tuple[str | int, ...] = (PLAIN, *self.lengths)
        kinds = [(rule, draft) for rule in RULES for draft in drafts]
        jobs = [
            partial(self.prepare, model, i, accept=rule, draft=draft)
            for i in missing
            for rule, draft in kinds
        ]
        found: dict[int, dict[Kind, Completion]] = {}
        unequal = []
        for number, completion in completions(model, jobs):
            index = missing[number // len(kinds)]
            found.setdefault(index, {})[kinds[number % len(kinds)]] = completion
            if len(found[index]) < len(kinds):
                continue
            own = found[index]
            if all(own[kind].tokens == own[kind[0], PLAIN].tokens for kind in kinds):
                yield index, self._record(model, index, found.pop(index))
            else:
                unequal.append(index)
        for index in unequal:
            yield index, self._record(model, index, found.pop(index))

    def _record(self, model: FusedModel, index: int, found: Mapping[Kind, Completion]) -> Record:
        record: dict[str, dict[str, Record]] = {rule: {} for rule in RULES}
        for (rule, draft), completion in found.items():
            plain, timings = found[rule, PLAIN], completion.timings
            record[rule][str(draft)] = {
                "rounds": timings.rounds,
                "drafted": timings.drafted,
                "accepted": timings.accepted,
                "tokens": len(completion.tokens),
                "shift": largest_shift(plain, completion),
                "difference": None
                if completion.tokens == plain.tokens
                else self._difference(model, index, rule, plain.tokens, completion.tokens),
            }
        return record

    def _difference(
        self, model: FusedModel, index: int, rule: str, one: Sequence[int], other: Sequence[int]
    ) -> Difference:
        """Where two texts part, and how much the plain reply preferred its own token there."""
        place = first_difference(one, other)
        if rule != "coupled" or place >= min(len(one), len(other)):
            return {"place": place, "gap": None}
        changes = {"accept": rule, "draft": PLAIN, "max_tokens": place + 1, "trace": True}
        again = model.chat(self.conversations[index], **self.settings(index, changes))
        if again.tokens[:place] != tuple(one[:place]) or len(again.traces) <= place:
            return {"place": place, "gap": None}
        settings = self.settings(index, {})
        noise = Noise(settings["seed"], 0, place)
        tokens = one[place], other[place]
        found = gap(again.traces[place], *tokens, settings["temperature"], noise)
        return {"place": place, "gap": found if math.isfinite(found) else None}


@dataclass(frozen=True)
class Checked(Replies):
    """Rounds of two rows, in which one draft is checked, with the total variation of its row.

    Drafts must come from the distribution that a trace describes: temperature 1. A record has
    "rows": [total variation of fused and drafter, whether the draft was decided] each.
    """

    @property
    def content(self) -> Record:
        """What texts depend on."""
        return {"kind": "checked", **self.models.content({**PURE, **self._options})}

    @property
    def _options(self) -> Mapping[str, Any]:
        return {**self.options, "draft": 2, "trace": True, "temperature": 1.0}

    def run(self, missing: Sequence[int], loader: Loader) -> Iterator[tuple[int, Record]]:
        """Ask what has not been asked yet.

        Raises:
            EftlocalError: for the first conversation that cannot be answered.
        """
        model = loader.get(self.models)
        for index in missing:
            prepared = self.prepare(model, index, **self._options)
            yield index, {"rows": checked_rows(model, prepared) if model.can_draft else []}


def checked_rows(model: FusedModel, prepared: Prepared) -> list[tuple[float, bool]]:
    """Run a request with n = 2 and a trace: per first row of a round, (TV, draft was decided)."""
    request = prepared.request
    roles = model.engine.ensemble.roles
    drafter = roles.drafter(request.weights)
    expert = [tuned for tuned, _ in roles.experts].index(drafter)
    room = model.n_ctx - max(map(len, request.prompts))
    limit = min(request.options.max_tokens or room, room)
    stream = model.start(prepared)
    rows: list[tuple[float, bool]] = []
    drafted = n_tokens = 0
    try:
        while stream.is_running:
            model.engine.step()
            events = stream.take()
            if not events:
                continue
            is_last = n_tokens + 1 >= limit  # nothing is drafted for it
            was_proposed = stream.timings.drafted > drafted
            drafted, n_tokens = stream.timings.drafted, n_tokens + len(events)
            first = events[0]
            assert first.trace is not None
            # A draft that ends the text is not put to the test as others are: nothing is drafted
            # after it, and the round decides the row alone, with the same noise.
            agreed = first.from_draft if was_proposed else first.token in model.engine.eog
            if not is_last:
                rows.append((first.trace.total_variation[expert], agreed))
    finally:
        stream.close()
    return rows


@dataclass(frozen=True)
class Turns(Replies):
    """Seconds per token of plain and drafted replies, in turns, one reply at a time.

    A record has draft ("off", "2", ..., "auto") -> seconds per token.

    Attributes:
        drafts: what takes turns.
    """

    drafts: tuple[str | int, ...] = (PLAIN, 2, 4, 8, "auto")

    @property
    def content(self) -> Record:
        """What is measured; not on which machine."""
        content = self.models.content({**PURE, **self.options})
        return {"kind": "turns", "drafts": list(self.drafts), **content}

    def run(self, missing: Sequence[int], loader: Loader) -> Iterator[tuple[int, Record]]:
        """Measure what has not been measured yet, in models that nothing else has used.

        Raises:
            EftlocalError: for the first conversation that cannot be answered.
        """
        loader.close()
        model = loader.get(self.models)
        for draft in self.drafts:
            self._seconds(model, missing[0], draft)
        for index in missing:
            start = index % len(self.drafts)
            order = self.drafts[start:] + self.drafts[:start]
            yield index, {str(draft): self._seconds(model, index, draft) for draft in order}
        # What auto has learnt of costs must not pad the decodes of what follows.
        loader.close()

    def _seconds(self, model: FusedModel, index: int, draft: str | int) -> float:
        changes = self.settings(index, {"draft": draft})
        completion = model.chat(self.conversations[index], **changes)
        return completion.timings.generation_seconds / len(completion.tokens)
