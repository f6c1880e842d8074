"""The Python API's object: a loaded model entry that chats, completes and streams."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from .engine import Engine
from .errors import PromptError
from .generation import Generation, Request, TokenEvent
from .llama import Vocabulary, Weights
from .options import GenerationOptions, RuntimeOptions
from .prompts import ChatTemplate, Message, PromptEncoder, check_messages, plain_transcript
from .text import TextStream

OnPrefill = Callable[[int, int], None]


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
        prompt_tokens: the base's prompt.
        finish_reason: "stop", "length" or "cancelled".
        context_full: "length" because the context ended, not because of max_tokens.
        timings: how long it took.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    alphas: tuple[tuple[float, ...], ...]
    prompt_tokens: tuple[int, ...]
    finish_reason: str
    context_full: bool
    timings: Timings


class Stream(Iterator[TokenEvent]):
    """A generation as it comes: iterate for `TokenEvent`s, then read `completion`."""

    def __init__(self, engine: Engine, request: Request, vocabulary: Vocabulary) -> None:
        self._engine = engine
        self._vocabulary = vocabulary
        self._text = TextStream(request.options.stop)
        self._events: list[TokenEvent] = []
        self._next = 0
        self._on_end: list[Callable[[Completion], None]] = []
        self._request = replace(request, on_token=self._take)
        self._generation = engine.submit(self._request)

    def _take(self, event: TokenEvent) -> bool:
        """Give an event its text; True where a stop string ends the generation."""
        last = event.finish_reason is not None
        ends = event.token in self._engine.eog
        piece = b"" if ends else self._vocabulary.piece(event.token)
        text = self._text.feed(piece, final=last)
        reason = "stop" if self._text.stopped else event.finish_reason
        self._events.append(replace(event, text=text, finish_reason=reason))
        return self._text.stopped

    def __next__(self) -> TokenEvent:
        while self._next >= len(self._events):
            if not self.is_running:
                self._end()
                raise StopIteration
            self._engine.step()
        self._next += 1
        if self._next == len(self._events) and not self.is_running:
            self._end()
        return self._events[self._next - 1]

    def _end(self) -> None:
        actions, self._on_end = self._on_end, []
        for action in actions:
            action(self.completion)

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
    def text_was_cut(self) -> bool:
        """Whether a stop string ended the text, so that tokens say more than the text."""
        return self._text.stopped

    @property
    def completion(self) -> Completion:
        """What is there so far; complete after the iteration has ended."""
        events, generation = self._events, self._generation
        base = self._engine.ensemble.roles.base
        text = "".join(event.text for event in events)
        if generation.finish_reason == "cancelled":
            text += self._text.feed(b"", final=True)
        prompt = self._request.prompts[base]
        return Completion(
            text=text,
            tokens=tuple(event.token for event in events),
            logprobs=tuple(event.logprob for event in events),
            alphas=tuple(event.alpha for event in events),
            prompt_tokens=tuple(prompt),
            finish_reason=generation.finish_reason or "cancelled",
            context_full=generation.context_full,
            timings=_timings(generation, len(prompt)),
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


@dataclass(frozen=True, slots=True)
class Parts:
    """What `load` puts together for a `FusedModel`.

    Attributes:
        name: of the model entry, or of the base's file.
        engine: over the entry's contexts.
        weights: every loaded file once.
        files: role -> path.
        styles: per context, "template" or "plain".
        tuned: the weights whose chat template and vocabulary are used.
        expert_weights: one weight per expert.
        load_seconds: how long loading took.
    """

    name: str
    engine: Engine
    weights: tuple[Weights, ...]
    files: Mapping[str, str]
    styles: tuple[str, ...]
    tuned: Weights
    expert_weights: tuple[float, ...]
    load_seconds: float


class FusedModel:
    """Base, tuned and reference models that speak as one; made by `eftlocal.load`.

    Belongs to one thread at a time. Use it as a context manager, or call `close`.

    Args:
        parts: what was loaded.
        runtime: how it was loaded.
        options: defaults of every generation.
    """

    def __init__(self, parts: Parts, runtime: RuntimeOptions, options: GenerationOptions) -> None:
        self._parts = parts
        self.name = parts.name
        self.files = dict(parts.files)
        self.runtime = runtime
        self.options = options
        self.load_seconds = parts.load_seconds
        self.engine = parts.engine
        self.vocabulary = parts.tuned.vocabulary
        self.n_ctx = parts.engine.ensemble.n_ctx
        self.n_vocab = parts.engine.ensemble.n_vocab
        self._template: ChatTemplate | None = None
        self._encoder = PromptEncoder(self.vocabulary, runtime.parallel)
        self._streams: list[Stream] = []

    def chat(self, messages: Sequence[Message], **options: Any) -> Completion:
        """Answer a conversation; see `stream_chat`."""
        return _run(self.stream_chat(messages, **options))

    def complete(self, prompt: str | Sequence[int], **options: Any) -> Completion:
        """Continue a prompt; see `stream_complete`."""
        return _run(self.stream_complete(prompt, **options))

    def stream_chat(self, messages: Sequence[Message], **options: Any) -> Stream:
        """Answer a conversation, token by token.

        A model runs `parallel` streams at once; one more ends the oldest.

        Args:
            messages: {"role": "system" | "user" | "assistant", "content": text} each.
            **options: fields of `GenerationOptions`, and on_prefill(done, total).

        Raises:
            PromptError: where the messages or the chat template do not allow a prompt.
            ContextFull: where the prompt leaves no room for an answer.
            UsageError: for options that are not allowed.
        """
        check_messages(messages)
        texts = {"template": self._chat_template().render(messages)}
        if "plain" in self._parts.styles:
            texts["plain"] = plain_transcript(messages)
        ids = {style: self._encoder.encode(text) for style, text in texts.items()}
        stream = self._start(tuple(ids[style] for style in self._parts.styles), options)

        def remember(completion: Completion) -> None:
            if not stream.text_was_cut:
                reply = [t for t in completion.tokens if t not in self.engine.eog]
                self._encoder.remember(texts["template"], ids["template"], completion.text, reply)

        stream._on_end.append(remember)
        return stream

    def stream_complete(self, prompt: str | Sequence[int], **options: Any) -> Stream:
        """Continue a raw prompt (text or token ids), token by token, without a chat template.

        Args:
            prompt: text, in which markers such as <|end|> are control tokens, or token ids.
            **options: fields of `GenerationOptions`, and on_prefill(done, total).

        Raises:
            ContextFull: where the prompt leaves no room for a token.
            UsageError: for an empty prompt, foreign token ids or options that are not allowed.
        """
        if isinstance(prompt, str):
            ids = tuple(self.tokenize(prompt, special=True))
        else:
            ids = tuple(int(token) for token in prompt)
        return self._start((ids,) * len(self._parts.styles), options)

    def _start(self, prompts: tuple[tuple[int, ...], ...], options: dict[str, Any]) -> Stream:
        on_prefill: OnPrefill | None = options.pop("on_prefill", None)
        settings = self.options.updated(options)
        self._streams = [stream for stream in self._streams if stream.is_running]
        if len(self._streams) == self.runtime.parallel:
            # An abandoned stream must not hold its sequence for ever.
            self._streams.pop(0).close()
        request = Request(
            prompts, settings, weights=self._parts.expert_weights, on_prefill=on_prefill
        )
        stream = Stream(self.engine, request, self.vocabulary)
        self._streams.append(stream)
        return stream

    def _chat_template(self) -> ChatTemplate:
        if self._template is None:
            source = self._parts.tuned.chat_template()
            if not source:
                raise PromptError(
                    f"{self._parts.tuned.path} has no chat template; use `complete`, "
                    "or a tuned model that has one"
                )
            self._template = ChatTemplate(
                source, self._marker(self.vocabulary.bos), self._marker(self.vocabulary.eos)
            )
        return self._template

    def _marker(self, token: int) -> str:
        return self.vocabulary.piece(token, special=True).decode() if token >= 0 else ""

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """Token ids of a text; `special` adds BOS and reads markers as control tokens."""
        return self.vocabulary.tokenize(text, add_special=special, parse_special=special)

    def token_text(self, token: int) -> str:
        """A token as text, markers and broken characters included."""
        return self.vocabulary.piece(token, special=True).decode("utf-8", "replace")

    def close(self) -> None:
        """Free contexts, then weights; the object cannot be used afterwards."""
        self.engine.ensemble.close()
        for weights in self._parts.weights:
            weights.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _run(stream: Stream) -> Completion:
    try:
        for _ in stream:
            pass
    finally:
        stream.close()
    return stream.completion
