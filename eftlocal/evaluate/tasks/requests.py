"""Requests of a harness: scores of continuations, and texts; each on its own, in token ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from ... import Completion, EftlocalError, FusedModel, UsageError
from ...batch import completions
from ...masking import Mask
from ...stream import Prepared
from ..store import Record, digest

Ids = tuple[int, ...]
Prompts = tuple[Ids, ...]
"""One prompt for all models, or one per context where they are told different things."""


class Wish(Protocol):
    """One thing that is asked of a model."""

    @property
    def key(self) -> str:
        """A name for all that its record depends on beside the system."""

    def prepare(self, model: FusedModel, options: Mapping[str, Any]) -> Prepared:
        """The request that finds it out."""

    def record(self, completion: Completion) -> Record:
        """What is kept of the answer."""


@dataclass(frozen=True)
class Score:
    """How likely a continuation is after a prompt; a record has "logprob" and "greedy".

    By default all tokens are scored as `FusedModel.score` does it, to the last bit. Decoding the
    continuation by force instead needs no scores of the prompt, so that the cache's can be used
    again, and prompts may differ between models. It differs by the rounding of llama.cpp's
    batches, and an alpha that is held over several tokens is searched elsewhere.

    Attributes:
        prompts: at least one token each.
        continuation: at least one token.
        forced: decode by force; needed where prompts differ.
    """

    prompts: Prompts
    continuation: Ids
    forced: bool = False

    @property
    def key(self) -> str:
        """See `Wish.key`."""
        return digest(["score", self.prompts, self.continuation, self.forced])

    def prepare(self, model: FusedModel, options: Mapping[str, Any]) -> Prepared:
        """See `Wish.prepare`."""
        if not self.forced:
            options = {**options, "top_logprobs": 1}
            ids = (*self.prompts[0], *self.continuation)
            return model.prepare_complete(ids, echo=True, generate=False, **options)
        options = {
            **{name: value for name, value in options.items() if name not in _OF_TEXTS},
            "temperature": 0.0,
            "max_tokens": len(self.continuation),
            "draft": "off",
            "trace": True,
        }
        prepared = model.prepare_complete(self.prompts[0], **options)
        forced = _Forced(self.continuation, model.n_vocab)
        return replace(
            prepared,
            request=replace(
                prepared.request,
                prompts=_spread(self.prompts, prepared),
                constraint=forced,
                options=replace(prepared.request.options, stop=()),
            ),
        )

    def record(self, completion: Completion) -> Record:
        """See `Wish.record`."""
        if not self.forced:
            events = completion.prompt_scores[len(self.prompts[0]) - 1 :]
            logprobs = [event.logprob for event in events]
            greedy = all(event.top[0][0] == event.token for event in events)
        else:
            if completion.tokens != self.continuation:
                raise EftlocalError("a continuation holds an end token; it cannot be scored here")
            logprobs = list(completion.logprobs)
            pairs = zip(completion.traces, completion.tokens, strict=True)
            greedy = all(trace.fused.top == token for trace, token in pairs)
        return {"logprob": sum(logprobs), "greedy": greedy}


_OF_TEXTS = ("json_schema", "regex", "grammar", "stop")


@dataclass(frozen=True)
class Text:
    """What a model says after a prompt; a record has "text" and "finish_reason".

    Attributes:
        prompts: at least one token each.
        options: of the reply.
        conversation: what the prompts say, where they come from a chat template.
        choice: tells repeated requests apart.
    """

    prompts: Prompts
    options: Mapping[str, Any]
    conversation: Sequence[Mapping[str, str]] = ()
    choice: int = 0

    @property
    def key(self) -> str:
        """See `Wish.key`."""
        is_chat = bool(self.conversation)
        return digest(["text", self.prompts, dict(self.options), is_chat, self.choice])

    def prepare(self, model: FusedModel, options: Mapping[str, Any]) -> Prepared:
        """See `Wish.prepare`."""
        options = {**options, **self.options}
        if self.conversation:
            prepared = model.prepare_chat(self.conversation, **options)
        else:
            prepared = model.prepare_complete(self.prompts[0], **options)
        request = replace(prepared.request, prompts=_spread(self.prompts, prepared))
        # What a reply was in tokens must not change the prompts of later requests.
        return replace(prepared, request=request, on_end=None).with_choice(self.choice)

    def record(self, completion: Completion) -> Record:
        """See `Wish.record`."""
        text = completion.answer if self.conversation else completion.text
        return {"text": text, "finish_reason": completion.finish_reason}


def _spread(prompts: Prompts, prepared: Prepared) -> Prompts:
    """One prompt per context."""
    return prompts * len(prepared.request.prompts) if len(prompts) == 1 else prompts


def fulfil(
    model: FusedModel, wishes: Sequence[Wish], options: Mapping[str, Any]
) -> Iterator[tuple[int, Record]]:
    """Find out several things, as many at once as the model has sequences, in any order.

    Raises:
        EftlocalError: for the first one that cannot be found out.
    """
    jobs = ((lambda wish=wish: wish.prepare(model, options)) for wish in wishes)
    for index, completion in completions(model, jobs):
        yield index, wishes[index].record(completion)


@dataclass
class _Forced:
    """A constraint that only these tokens match; also its matcher, which `start` copies."""

    tokens: Ids
    n_vocab: int
    place: int = field(default=0)

    def start(self) -> _Forced:
        """A matcher at the first token."""
        return _Forced(self.tokens, self.n_vocab)

    @property
    def is_ended(self) -> bool:
        """Whether all tokens are there."""
        return self.place >= len(self.tokens)

    def mask(self) -> Mask:
        """(V,) true for the next token alone."""
        allowed = np.zeros(self.n_vocab, dtype=np.bool_)
        allowed[self.tokens[self.place]] = True
        return allowed

    def consume(self, token: int) -> None:
        """Go on."""
        self.place += 1

    def rollback(self, n_tokens: int) -> None:
        """Go back."""
        self.place -= n_tokens


def shortened(prompts: Prompts, room: int, what: str) -> tuple[Prompts, bool]:
    """Prompts cut from the left where they are longer than this, and whether any was.

    Raises:
        UsageError: where there is no room for a token; `what` takes it.
    """
    if room < 1:
        raise UsageError(f"{what} and a prompt do not fit the context; raise ctx")
    return tuple(ids[-room:] for ids in prompts), any(len(ids) > room for ids in prompts)
