"""The Python API's object: a loaded model entry that chats, completes and streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .constraints import Compiler, Thinking
from .engine import Engine
from .errors import ContextFull, UsageError
from .experts import resolve_weights
from .generation import Request, TokenEvent
from .llama import Weights
from .options import CONSTRAINTS, GenerationOptions, RuntimeOptions
from .prompts import (
    Message,
    PromptEncoder,
    check_messages,
    without_thinking,
)
from .reasoning import opens_block
from .rendering import Renderer
from .stream import Completion, Prepared, Stream
from .toolcalls import Tools, read_tools

OnPrefill = Callable[[int, int], None]

# Texts have fewer characters per token than this, but for long runs of blanks.
_CHARACTERS_PER_TOKEN = 8


@dataclass(frozen=True, slots=True)
class Parts:
    """What `load` puts together for a `FusedModel`.

    Attributes:
        name: of the model entry, or of the base's file.
        engine: over the entry's contexts.
        weights: every loaded file once.
        files: role -> path.
        styles: per context, "template" (of the tuned model's file), "plain", or a Jinja file.
        tuned: the weights whose chat template and vocabulary are used.
        experts: the names of the experts.
        load_seconds: how long loading took.
        think: what a terminal does with <think> blocks, as `Entry.think` says.
    """

    name: str
    engine: Engine
    weights: tuple[Weights, ...]
    files: Mapping[str, str]
    styles: tuple[str | Path, ...]
    tuned: Weights
    experts: tuple[str, ...]
    load_seconds: float
    think: str = "dim"


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
        self.experts = parts.experts
        self.runtime = runtime
        self.options = options
        self.load_seconds = parts.load_seconds
        self.think = parts.think
        self.engine = parts.engine
        self.vocabulary = parts.tuned.vocabulary
        self.n_ctx = parts.engine.ensemble.n_ctx
        self.n_vocab = parts.engine.ensemble.n_vocab
        self._renderer = Renderer(
            parts.tuned, parts.styles[self.engine.ensemble.roles.experts[0][0]]
        )
        capacity = runtime.parallel * len(set(parts.styles))
        self._encoder = PromptEncoder(self.vocabulary, capacity)
        self._compiler = Compiler(self.vocabulary, self.n_vocab, self.engine.eog)
        self._streams: list[Stream] = []
        self._is_open = True

    @property
    def can_draft(self) -> bool:
        """Whether all caches can take tokens back; recurrent and hybrid models' cannot."""
        return self.engine.ensemble.can_rewind

    @property
    def chat_template(self) -> str | None:
        """The source of the tuned model's chat template, if it reads one."""
        return self._renderer.source

    def chat(self, messages: Sequence[Message], **options: Any) -> Completion:
        """Answer a conversation; see `stream_chat`."""
        return _run(self.stream_chat(messages, **options))

    def complete(self, prompt: str | Sequence[int], **options: Any) -> Completion:
        """Continue a prompt; see `stream_complete`."""
        return _run(self.stream_complete(prompt, **options))

    def score(self, prompt: str | Sequence[int], **options: Any) -> tuple[TokenEvent, ...]:
        """Score a raw prompt: log F of each of its tokens, given those before it.

        Args:
            prompt: as `stream_complete` takes it.
            **options: fields of `GenerationOptions`; those of the sampler do not matter.

        Returns:
            One event per prompt token but the first, which nothing precedes.

        Raises:
            ContextFull, UsageError: as `stream_complete` does.
        """
        prepared = self.prepare_complete(prompt, echo=True, generate=False, **options)
        return _run(self._start(prepared)).prompt_scores

    def stream_chat(self, messages: Sequence[Message], **options: Any) -> Stream:
        """Answer a conversation, token by token.

        A model runs `parallel` streams at once; one more ends the oldest.

        Args:
            messages: as `prepare_chat` takes them.
            **options: all that `prepare_chat` takes.

        Raises:
            PromptError, ContextFull, UsageError: as `prepare_chat` does.
        """
        return self._start(self.prepare_chat(messages, **options))

    def stream_complete(self, prompt: str | Sequence[int], **options: Any) -> Stream:
        """Continue a raw prompt (text or token ids), token by token, without a chat template.

        Args:
            prompt: text, in which markers such as <|end|> are control tokens, or token ids.
            **options: all that `prepare_complete` takes.

        Raises:
            ContextFull, UsageError: as `prepare_complete` does.
        """
        return self._start(self.prepare_complete(prompt, **options))

    def prepare_chat(
        self,
        messages: Sequence[Message],
        *,
        keep_thinking: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        parallel_tool_calls: bool | None = None,
        **options: Any,
    ) -> Prepared:
        """Check a conversation and make it a request for `start`; any thread may do this.

        Args:
            messages: {"role": "system" | "user" | "assistant", "content": text} each; more in
                `prompts.check_messages`.
            keep_thinking: leave <think> blocks at the start of earlier replies in the prompt.
            tools: functions that the model may call, as the OpenAI API describes them; see
                `toolcalls.read_tools`.
            tool_choice: "auto", "none", "required", or an object that names a function.
            parallel_tool_calls: False allows one call.
            **options: fields of `GenerationOptions`, and on_prefill(done, total).

        Raises:
            PromptError: where the messages or the chat template do not allow a prompt.
            ContextFull: where the prompt leaves no room for an answer.
            UsageError: for options that are not allowed.
        """
        self._check_open()
        check_messages(messages)
        if not keep_thinking:
            messages = without_thinking(messages)
        read = read_tools(tools, tool_choice, parallel_tool_calls)
        used = self._renderer.with_format(read) if read else None
        texts = {
            style: self._renderer.text(style, messages, used.definitions if used else None)
            for style in dict.fromkeys(self._parts.styles)
        }
        opened = any(map(opens_block, texts.values()))
        if used and used.is_forced:
            options = {**options, "grammar": self._forced(used, options)}
        for text in texts.values():
            self._refuse_hopeless(text)
        ids = {style: self._encoder.encode(text) for style, text in texts.items()}
        thinking: Thinking = (
            "opened" if opened else "allowed" if self._renderer.may_think else "none"
        )
        prompts = tuple(ids[style] for style in self._parts.styles)
        request = self._request(prompts, options, thinking)

        def remember(completion: Completion) -> None:
            if not completion.text_was_cut:
                reply = [t for t in completion.tokens if t not in self.engine.eog]
                for style in texts.keys() - {"plain"}:
                    self._encoder.remember(texts[style], ids[style], completion.text, reply)

        base = request.prompts[self.engine.ensemble.roles.base]
        visible = used.visible(self.vocabulary) if used else frozenset()
        return Prepared(request, base, opened, visible, used, on_end=remember)

    def _forced(self, tools: Tools, options: Mapping[str, Any]) -> str:
        """The grammar that makes the reply a call.

        Raises:
            UsageError: where the reply has to look like something else, too.
        """
        for name in CONSTRAINTS:
            if options.get(name) is not None:
                message = f"{name} cannot go together with a tool_choice that asks for a call"
                raise UsageError(message)
        return tools.grammar(self.vocabulary)

    def prepare_complete(
        self,
        prompt: str | Sequence[int],
        *,
        echo: bool = False,
        generate: bool = True,
        like: Prepared | None = None,
        **options: Any,
    ) -> Prepared:
        """Check a raw prompt and make it a request for `start`; any thread may do this.

        Args:
            prompt: text, in which markers such as <|end|> are control tokens, or token ids.
            echo: score the prompt's tokens, too: `Completion.prompt_scores`.
            generate: False only reads the prompt.
            like: a request with the same options, whose constraint is taken instead of a new one.
            **options: fields of `GenerationOptions`, and on_prefill(done, total).

        Raises:
            ContextFull: where the prompt leaves no room for a token.
            UsageError: for an empty prompt, foreign token ids or options that are not allowed.
        """
        self._check_open()
        if isinstance(prompt, str):
            self._refuse_hopeless(prompt)
            ids = tuple(self.tokenize(prompt, special=True))
        else:
            ids = tuple(int(token) for token in prompt)
        request = self._request((ids,) * len(self._parts.styles), options, like=like)
        return Prepared(replace(request, echo=echo, generate=generate), ids)

    def _refuse_hopeless(self, text: str) -> None:
        """Refuse a prompt of megabytes without the seconds that tokenizing it would take.

        Raises:
            ContextFull: where its beginning alone has more tokens than the context holds; a
                quarter more, because the end of a cut text may be tokenized otherwise.
        """
        beginning = text[: _CHARACTERS_PER_TOKEN * self.n_ctx]
        if len(beginning) == len(text):
            return
        n_tokens = len(self.tokenize(beginning, special=True))
        if n_tokens > 1.25 * self.n_ctx:
            raise ContextFull(
                f"the prompt has more than {n_tokens} tokens, but the context holds {self.n_ctx}; "
                "shorten the prompt or raise ctx"
            )

    def _request(
        self,
        prompts: tuple[tuple[int, ...], ...],
        options: dict[str, Any],
        thinking: Thinking = "none",
        like: Prepared | None = None,
    ) -> Request:
        on_prefill: OnPrefill | None = options.pop("on_prefill", None)
        settings = self.options.updated(options)
        weights = resolve_weights(self.experts, settings)
        request = Request(prompts, settings, weights, on_prefill=on_prefill)
        self.engine.check(request)
        if like is None:
            constraint = self._compiler.compile(settings, thinking)
        else:
            constraint = like.request.constraint
        return replace(request, constraint=constraint) if constraint else request

    def start(self, prepared: Prepared) -> Stream:
        """Queue a request in the engine; only in the thread that runs the model."""
        self._check_open()
        return Stream(self.engine, prepared, self.vocabulary)

    def _start(self, prepared: Prepared) -> Stream:
        """`start`; where all sequences are taken the oldest stream ends."""
        self._streams = [stream for stream in self._streams if stream.is_running]
        if len(self._streams) == self.runtime.parallel:
            # An abandoned stream must not hold its sequence for ever.
            self._streams.pop(0).close()
        stream = self.start(prepared)
        self._streams.append(stream)
        return stream

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """Token ids of a text; `special` adds BOS and reads markers as control tokens."""
        self._check_open()
        return self.vocabulary.tokenize(text, add_special=special, parse_special=special)

    def token_text(self, token: int) -> str:
        """A token as text, markers and broken characters included."""
        self._check_open()
        return self.vocabulary.piece(token, special=True).decode("utf-8", "replace")

    def _check_open(self) -> None:
        """Freed memory must not be touched: llama.cpp would abort the process."""
        if not self._is_open:
            raise UsageError(f"the model {self.name} is closed; load it again")

    def close(self) -> None:
        """Free contexts, then weights; the object cannot be used afterwards."""
        for stream in self._streams:
            stream.close()
        self._is_open = False
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
