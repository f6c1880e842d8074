"""A generation as its user sees it: events with text, then a completion with timings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from . import reasoning
from .diagnostics import Trace
from .engine import Engine
from .generation import Generation, Request, TokenEvent
from .llama import Vocabulary
from .text import TextStream
from .toolcalls import ToolCall, Tools, split_calls


@dataclass(frozen=True, slots=True)
class Timings:
    """How long a completion took, in seconds, and how speculation went.

    Attributes:
        prompt_tokens: of the base's prompt.
        cached_tokens: of them, those that were in the cache already.
        prompt_seconds: reading the prompt, all models.
        generated_tokens: tokens emitted.
        generation_seconds: from the end of the prompt to the last token.
        first_token_seconds: from the request to the first token.
        rounds: steps of the loop; drafted: proposals checked; accepted: of them, those taken.
    """

    prompt_tokens: int
    cached_tokens: int
    prompt_seconds: float
    generated_tokens: int
    generation_seconds: float
    first_token_seconds: float
    rounds: int
    drafted: int
    accepted: int


@dataclass(frozen=True, slots=True)
class Completion:
    """What was generated.

    Attributes:
        text: without end tokens and stop strings.
        tokens: every emitted id, an end token included.
        logprobs: log F per token, before sampler settings.
        alphas: one number per expert, per token.
        traces: the tokens' distributions, where asked for.
        prompt_tokens: the base's prompt.
        finish_reason: "stop", "length" or "cancelled"; "error" where an error ended it.
        context_full: "length" because the context ended, not because of max_tokens.
        timings: how long it took.
        thinking_opened: the prompt opened a <think> block, so the text begins inside it.
        prompt_scores: log F of every prompt token but the first, where asked for.
        text_was_cut: a stop string ended the text, so that tokens say more than the text.
        tools: what the reply could call; None where nothing.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    alphas: tuple[tuple[float, ...], ...]
    traces: tuple[Trace, ...]
    prompt_tokens: tuple[int, ...]
    finish_reason: str
    context_full: bool
    timings: Timings
    thinking_opened: bool = False
    prompt_scores: tuple[TokenEvent, ...] = ()
    text_was_cut: bool = False
    tools: Tools | None = None

    @property
    def thinking(self) -> str:
        """The <think> block that the text begins with; "" where there is none."""
        return reasoning.split(self.text, self.thinking_opened)[0]

    @property
    def answer(self) -> str:
        """The text after its <think> block, without calls; the text itself where there is none."""
        return self._answer_and_calls[0]

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls of tools in the text; none where no tools were given."""
        return self._answer_and_calls[1]

    @property
    def _answer_and_calls(self) -> tuple[str, tuple[ToolCall, ...]]:
        answer = reasoning.split(self.text, self.thinking_opened)[1]
        if self.tools is None:
            return answer, ()
        # The ids are the same whenever they are asked for.
        return split_calls(answer, self.tools, seed=repr((self.prompt_tokens, self.tokens)))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that has been checked and can be started; made by `FusedModel.prepare_...`.

    Attributes:
        request: what the engine gets.
        prompt: the base's prompt, one of the request's.
        thinking_opened: see `Completion.thinking_opened`.
        visible: ids of control tokens whose markers belong to the text.
        tools: what the reply may call; None where nothing.
        on_end: what else is to be done with the completion.
    """

    request: Request
    prompt: tuple[int, ...]
    thinking_opened: bool = False
    visible: frozenset[int] = frozenset()
    tools: Tools | None = None
    on_end: Callable[[Completion], None] | None = None

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens of the base's prompt."""
        return len(self.prompt)

    def with_choice(self, choice: int) -> Prepared:
        """The same request for another completion of its prompt and seed."""
        return replace(self, request=replace(self.request, choice=choice))


class Stream(Iterator[TokenEvent]):
    """A generation as it comes: iterate for `TokenEvent`s, then read `completion`.

    Attributes:
        request: what was asked for.
        thinking_opened: see `Completion.thinking_opened`.
    """

    def __init__(self, engine: Engine, prepared: Prepared, vocabulary: Vocabulary) -> None:
        request = prepared.request
        self._engine = engine
        self.thinking_opened = prepared.thinking_opened
        self._visible = prepared.visible
        self._tools = prepared.tools
        self._vocabulary = vocabulary
        self._text = TextStream(request.options.stop)
        self._events: list[TokenEvent] = []
        self._next = 0
        self._tail = ""
        self._on_event: list[Callable[[TokenEvent], None]] = []
        self._on_end = [prepared.on_end] if prepared.on_end else []
        self.request = replace(request, on_token=self._take)
        self._generation = engine.submit(self.request)

    def _take(self, event: TokenEvent) -> bool:
        """Give an event its text; True where a stop string ends the generation."""
        last = event.finish_reason is not None
        ends = event.token in self._engine.eog
        special = event.token in self._visible
        piece = b"" if ends else self._vocabulary.piece(event.token, special=special)
        text = self._text.feed(piece, final=last)
        reason = "stop" if self._text.stopped else event.finish_reason
        # Much quicker than dataclasses.replace, and this is done for every token.
        more = (event.from_draft, reason, event.top, event.trace, text)
        self._events.append(TokenEvent(event.token, event.logprob, event.alpha, *more))
        return self._text.stopped

    def __next__(self) -> TokenEvent:
        while self._next >= len(self._events):
            if not self.is_running:
                self._end()
                raise self.error or StopIteration
            self._engine.step()
        return self._hand_out()

    def take(self) -> list[TokenEvent]:
        """The events that are there and were not handed out, for whoever steps the engine."""
        events = []
        while self._next < len(self._events):
            events.append(self._hand_out())
        if not self.is_running:
            self._end()
        return events

    def _hand_out(self) -> TokenEvent:
        event = self._events[self._next]
        self._next += 1
        for action in self._on_event:
            action(event)
        if self._next == len(self._events) and not self.is_running:
            self._end()
        return event

    def _end(self) -> None:
        actions, self._on_end = self._on_end, []
        for action in actions if self.error is None else ():
            action(self.completion)

    def on_event(self, action: Callable[[TokenEvent], None]) -> None:
        """Call `action` with every event, just before it is handed out."""
        self._on_event.append(action)

    def on_end(self, action: Callable[[Completion], None]) -> None:
        """Call `action` once, when all tokens have been taken or the generation was cancelled."""
        self._on_end.append(action)

    def cancel(self) -> None:
        """End the generation before its next step; safe from signal handlers and threads."""
        self._generation.cancel()

    def close(self) -> None:
        """End the generation now, if it still runs."""
        if self.is_running:
            self._engine.cancel(self._generation)

    @property
    def is_running(self) -> bool:
        """Whether there are tokens to come."""
        return self._generation.finish_reason is None

    @property
    def error(self) -> BaseException | None:
        """What ended the generation, where that was an error."""
        return self._generation.error

    @property
    def prefilled(self) -> int:
        """Prompt tokens of the base that have been read."""
        generation, ensemble = self._generation, self._engine.ensemble
        if generation.last or generation.sequence < 0:
            return len(self.request.prompts[ensemble.roles.base]) if generation.last else 0
        return len(ensemble.contexts[ensemble.roles.base].tokens(generation.sequence))

    @property
    def timings(self) -> Timings:
        """How it goes so far; any thread may ask."""
        base = self._engine.ensemble.roles.base
        return _timings(self._generation, len(self.request.prompts[base]))

    @property
    def sequence(self) -> int:
        """Where it runs; -1 while it waits."""
        return self._generation.sequence

    @property
    def completion(self) -> Completion:
        """What is there so far; complete after the iteration has ended."""
        events, generation = self._events, self._generation
        base = self._engine.ensemble.roles.base
        text = "".join(event.text for event in events)
        if generation.finish_reason == "cancelled":
            # Released once, kept for later reads.
            self._tail += self._text.feed(b"", final=True)
        text += self._tail
        prompt = self.request.prompts[base]
        return Completion(
            text=text,
            tokens=tuple(event.token for event in events),
            logprobs=tuple(event.logprob for event in events),
            alphas=tuple(event.alpha for event in events),
            traces=tuple(event.trace for event in events if event.trace is not None),
            prompt_tokens=tuple(prompt),
            finish_reason=generation.finish_reason or "cancelled",
            context_full=generation.context_full,
            timings=self.timings,
            thinking_opened=self.thinking_opened,
            prompt_scores=tuple(generation.scores),
            text_was_cut=self._text.stopped,
            tools=self._tools,
        )


def _timings(generation: Generation, prompt_tokens: int) -> Timings:
    times = generation.times
    end = times.finished or time.perf_counter()
    prefilled = times.prefilled or end
    return Timings(
        prompt_tokens=prompt_tokens,
        cached_tokens=generation.cached_tokens,
        prompt_seconds=prefilled - (times.started or prefilled),
        generated_tokens=len(generation.tokens),
        generation_seconds=end - prefilled,
        first_token_seconds=(times.first_token or end) - times.submitted,
        rounds=generation.rounds,
        drafted=generation.drafted,
        accepted=generation.accepted,
    )
