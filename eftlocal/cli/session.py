"""A chat session: one model, one conversation, the settings between two replies. Prints nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EftlocalError, UsageError
from ..experts import resolve_weights
from .conversation import Conversation, Turn
from .options import Arguments, listed
from .state import SavedChat, autosave_file, read_chat, read_text, write_chat

if TYPE_CHECKING:
    from .. import Completion, FusedModel, Stream
    from ..options import GenerationOptions

PrefillProgress = Callable[[int, int], None]
StartStream = Callable[[PrefillProgress | None], "Stream"]
Deliver = Callable[[StartStream], "Completion"]
"""Starts a stream, shows what it yields, and returns its completion."""

LoadModel = Callable[[Arguments], "FusedModel"]
"""Loads the model that the arguments name, with whatever is shown meanwhile."""

_WEIGHTS = ("weight", "lambda_")
_REGENERATION_STRIDE = 1_000_003


def reply_seed(seed: int, turn: int, regenerations: int) -> int:
    """Return the seed of one reply: seed + turn + 1,000,003 * regenerations.

    Turns count from 0, so the first reply has the seed itself and equals a one-shot answer; no two
    replies of a conversation share their noise, and the same steps give the same texts.
    """
    return seed + turn + _REGENERATION_STRIDE * regenerations


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file whose text goes before the next message."""

    name: str
    text: str
    tokens: int


@dataclass(slots=True)
class Totals:
    """Sums over all replies of a session."""

    replies: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    generation_seconds: float = 0.0
    drafted: int = 0
    accepted: int = 0

    def add(self, completion: Completion) -> None:
        """Count one reply."""
        timings = completion.timings
        self.replies += 1
        for name in list(self.__slots__)[1:]:
            setattr(self, name, getattr(self, name) + getattr(timings, name))


@dataclass(slots=True)
class Session:
    """What a chat works on.

    Attributes:
        arguments: the command line; `/model` changes its entry.
        options: generation options that were set by hand; the entry's defaults are not in it.
        attachments: files added to the next message.
        last: the last completion, for /stats.
        autosave: where the conversation is saved after each turn; None is nowhere.
        trouble: why autosaving ended, until it was shown.
        think: what happens to <think> blocks: "show", "dim" or "hide"; None is as the entry says.
    """

    arguments: Arguments
    load_model: LoadModel
    model: FusedModel
    conversation: Conversation = field(default_factory=Conversation)
    options: dict[str, Any] = field(default_factory=dict)
    autosave: Path | None = None
    trouble: str = ""
    think: str | None = None
    attachments: list[Attachment] = field(default_factory=list)
    last: Completion | None = None
    totals: Totals = field(default_factory=Totals)

    @property
    def settings(self) -> GenerationOptions:
        """The options of the next reply: the entry's, changed by what was set."""
        return self.model.options.updated(self.options)

    def ask(self, text: str, deliver: Deliver) -> Completion:
        """Send a message and add the turn; nothing changes if no reply began.

        Raises:
            EftlocalError: ContextFull above all; the conversation and attachments stay as they are.
        """
        parts = [attachment.text for attachment in self.attachments]
        user = "\n\n".join([*parts, text] if text else parts)
        completion = self._reply(user, 0, deliver)
        if not _is_nothing(completion):
            self.attachments.clear()
        return completion

    def regenerate(self, deliver: Deliver) -> Completion:
        """Replace the last reply by one with other noise; the old one stays if none begins.

        Raises:
            UsageError: if there is no reply yet.
        """
        turn = self.last_turn()
        self.conversation.turns.pop()
        kept = False
        try:
            completion = self._reply(turn.user, turn.regenerations + 1, deliver)
            kept = not _is_nothing(completion)
        finally:
            if not kept:
                self.conversation.turns.append(turn)
        return completion

    def _reply(self, user: str, regenerations: int, deliver: Deliver) -> Completion:
        turns = self.conversation.turns
        seed = reply_seed(self.settings.seed, len(turns), regenerations)
        messages = self.conversation.messages(user)
        options = {**self.options, "seed": seed}

        def start(on_prefill: PrefillProgress | None) -> Stream:
            return self.model.stream_chat(messages, on_prefill=on_prefill, **options)

        completion = deliver(start)
        if not _is_nothing(completion):
            turns.append(_turn(user, completion, regenerations))
            self.last = completion
            self.totals.add(completion)
            self.save_automatically()
        return completion

    def last_turn(self) -> Turn:
        """Return the last turn.

        Raises:
            UsageError: if there is none.
        """
        if not self.conversation.turns:
            raise UsageError("the conversation is empty")
        return self.conversation.turns[-1]

    def undo(self) -> Turn:
        """Remove the last turn and return it."""
        turn = self.last_turn()
        self.conversation.turns.pop()
        self.save_automatically()
        return turn

    def clear(self) -> None:
        """Start a new conversation with the same system prompt; the old one stays autosaved."""
        self._begin(Conversation(self.conversation.system))
        self.attachments.clear()

    def set_option(self, name: str, value: Any) -> None:
        """Set a generation option for the replies to come; None goes back to the entry's.

        A weight takes the place of a lambda, and the other way round.

        Raises:
            UsageError: if the value is not allowed; nothing changes then.
        """
        replaced = _WEIGHTS if name in _WEIGHTS else (name,)
        changed = {key: old for key, old in self.options.items() if key not in replaced}
        if value is not None:
            changed[name] = value
        resolve_weights(self.model.experts, self.model.options.updated(changed))
        self.options = changed

    def attach(self, path: Path) -> Attachment:
        """Add a file's text to the next message.

        Raises:
            UsageError: if it is not readable text, or cannot fit the context.
        """
        text = read_text(path).strip("\n")
        tokens = len(self.model.tokenize(text)) if text.strip() else 0
        if not tokens:
            raise UsageError(f"{path} is empty")
        if tokens >= self.model.n_ctx:
            size = self.model.n_ctx
            raise UsageError(f"{path} has {tokens:,} tokens, the context only {size:,}; see --ctx")
        attachment = Attachment(str(path), text, tokens)
        self.attachments.append(attachment)
        return attachment

    def saved(self) -> SavedChat:
        """Return what a file of this conversation holds."""
        files: dict[str, str | list[str]] = {}
        for role, paths in self.arguments.files.items():
            resolved = [
                path if path.startswith("hf:") else str(Path(path).resolve())
                for path in listed(paths)
            ]
            files[role] = resolved[0] if isinstance(paths, str) else resolved
        entry = None if files else self.model.name
        return SavedChat(self.conversation, entry, files, self.options)

    def save_automatically(self) -> None:
        """Save the conversation for --continue; a full disk must not end a chat."""
        if self.autosave is not None:
            try:
                write_chat(self.autosave, self.saved())
            except OSError as error:
                self.trouble = f"the conversation is no longer saved for --continue: {error}"
                self.autosave = None

    def _begin(self, conversation: Conversation) -> None:
        """Take up another conversation; the present one keeps its own autosave."""
        if self.autosave is not None and self.conversation.turns:
            self.autosave = autosave_file()
        self.conversation = conversation

    def restore(self, path: Path) -> SavedChat:
        """Continue the conversation of a file with this session's model and its saved options.

        Raises:
            UsageError: if it is no saved conversation; nothing changes then.
        """
        chat = read_chat(path)
        try:
            resolve_weights(self.model.experts, self.model.options.updated(chat.options))
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
        self._begin(chat.conversation)
        self.options = dict(chat.options)
        self.save_automatically()
        return chat

    def switch(self, entry: str) -> None:
        """Load another model entry and keep the conversation; the old one stays if that fails.

        Raises:
            EftlocalError: if the entry is unknown, does not load, or does not have the experts
                that options set by hand name.
        """
        before = self.arguments
        wanted = replace(before, entry=entry, files={}, generation=self.options)
        wanted.check()
        # Memory for two models may not be there, so the old one goes first.
        self.model.close()
        self.arguments = wanted
        try:
            self.model = self.load_model(self.arguments)
        except (EftlocalError, KeyboardInterrupt):
            self.arguments = before
            self.model = self.load_model(before)
            raise
        self.last = None


def _is_nothing(completion: Completion) -> bool:
    """Return whether the user stopped a reply before it began."""
    return completion.finish_reason == "cancelled" and not completion.tokens


def _turn(user: str, completion: Completion, regenerations: int) -> Turn:
    return Turn(
        user=user,
        reply=completion.answer,
        stopped=completion.finish_reason == "cancelled",
        regenerations=regenerations,
        context_tokens=len(completion.prompt_tokens) + len(completion.tokens),
        thinking=completion.thinking,
    )
