"""What goes into and comes out of the engine: requests, generations under way, token events."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from .diagnostics import Trace
from .drafting import Plan
from .fusion import FusionSettings
from .masking import Constraint, Masking
from .options import GenerationOptions


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One decided token.

    Attributes:
        token: its id.
        logprob: log F(token), before sampler settings and temperature.
        alpha: what each expert's delta was multiplied with.
        from_draft: whether the drafter had proposed it.
        finish_reason: on the last event "stop" or "length", else None.
        top: the likeliest (id, logprob) pairs, likeliest first, where asked for.
        trace: the distributions it came from, where asked for.
        text: what the event adds to the text; filled in where tokens become text.
    """

    token: int
    logprob: float
    alpha: tuple[float, ...]
    from_draft: bool = False
    finish_reason: str | None = None
    top: tuple[tuple[int, float], ...] = ()
    trace: Trace | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """What to generate.

    Attributes:
        prompts: one per context of the ensemble, at least one token each.
        options: fusion, sampler, length; `stop` is the business of `on_token`.
        weights: one weight per expert; None where the user gave none.
        choice: distinguishes completions of one prompt and seed.
        on_token: called for each event inside the round; True ends the generation there.
        on_prefill: called with (done, total) prompt tokens of the base, before the first and after
            every chunk; all but the last one are read ahead.
        echo: score the prompt's tokens, too; all contexts must have the same prompt then.
        generate: False ends when the prompt has been read (and scored).
        constraint: what the completion must match.
    """

    prompts: tuple[tuple[int, ...], ...]
    options: GenerationOptions
    weights: tuple[float, ...] | None = None
    choice: int = 0
    on_token: Callable[[TokenEvent], bool] | None = None
    on_prefill: Callable[[int, int], None] | None = None
    echo: bool = False
    generate: bool = True
    constraint: Constraint | None = None


@dataclass(slots=True)
class Times:
    """When a generation got how far, as time.perf_counter; 0 where it has not yet."""

    submitted: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    prefilled: float = 0.0
    first_token: float = 0.0
    finished: float = 0.0


@dataclass(slots=True, eq=False)
class Generation:
    """A request under way.

    Attributes:
        request: what was asked for.
        room: tokens that the contexts can take beyond the prompt.
        fusion: how its rows are fused.
        drafter: index of the context that drafts for it.
        masking: which tokens it may take, where that is constrained.
        held: the alpha that was searched last, what each delta is multiplied with.
        tokens: what has been emitted.
        counts: how often each emitted token occurred.
        last: per context, the token that the next round feeds; empty while the prompt is read.
        sequence: where it runs, -1 while it waits.
        finish_reason: None while it runs, then "stop", "length", "cancelled" or "error".
        error: what ended it, where that was an error.
        scores: log F of the prompt's tokens but the first, where asked for.
        cached_tokens: prompt tokens of the base that were not evaluated again.
        rounds, drafted, accepted: how speculation went.
        checked, agreed: drafts and probes that were compared with what was decided.
        plan: how far to draft, where that is chosen from measured costs.
        times: when it got how far.
    """

    request: Request
    room: int
    fusion: FusionSettings
    drafter: int
    masking: Masking | None = None
    held: tuple[float, ...] | None = None
    tokens: list[int] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)
    last: list[int] = field(default_factory=list)
    sequence: int = -1
    finish_reason: str | None = None
    error: BaseException | None = None
    scores: list[TokenEvent] = field(default_factory=list)
    cancelled: bool = False
    cached_tokens: int = 0
    rounds: int = 0
    drafted: int = 0
    accepted: int = 0
    checked: int = 0
    agreed: int = 0
    plan: Plan | None = None
    times: Times = field(default_factory=Times)

    def alpha_to_use(self, index: int) -> tuple[float, ...] | None:
        """The held alpha, or None where one is to be searched for token `index` (or is fixed).

        Args:
            index: counts completion tokens, or scores of prompt tokens, from 0.
        """
        every = self.request.options.alpha_every
        due = index % every == 0 if every else index == 0
        return None if due or not isinstance(self.fusion.alpha, str) else self.held

    @property
    def limit(self) -> int:
        """Most tokens it may have, by max_tokens and by the room in the contexts."""
        return min(self.request.options.max_tokens or self.room, self.room)

    @property
    def context_full(self) -> bool:
        """Whether it ended because the context did, not because of max_tokens."""
        wanted = self.request.options.max_tokens
        return self.finish_reason == "length" and not 0 < wanted <= self.room

    def cancel(self) -> None:
        """Ask it to end before its next step; safe from any thread and from signal handlers."""
        self.cancelled = True
