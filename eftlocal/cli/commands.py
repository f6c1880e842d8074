"""Slash commands of a chat: the table, and what each does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from ..errors import EftlocalError, UsageError
from ..options import option_name
from ..registry import THINK
from .controller import Chat, clipped
from .output import timing_lines
from .state import write_chat
from .tables import GENERATION, RUNTIME

_KEYS = """Keys
  \"\"\"              begins and ends a message of several lines; pasted line ends do not send
  Alt-Enter        a new line
  Ctrl-G           write the message in $EDITOR
  Ctrl-C           stops a reply, clears the line
  Ctrl-D           leaves"""


@dataclass(frozen=True, slots=True)
class Command:
    """One slash command; `usage` is what follows its name in the help."""

    usage: str
    summary: str
    run: Callable[[Chat, str], None]


def handle(chat: Chat, text: str) -> None:
    """Do what one input asks for; every error is one line, and the chat goes on."""
    try:
        if text.startswith("/"):
            _run_command(chat, text)
        elif text.strip():
            chat.send(unquoted(text, '"""'))
    except (EftlocalError, click.UsageError) as error:
        chat.face.warn(str(error))
    except OSError as error:
        chat.face.warn(f"{error.filename or 'failed'}: {error.strerror or error}")
    except Exception as error:
        if os.environ.get("EFTLOCAL_DEBUG"):
            raise
        chat.face.warn(f"internal error: {type(error).__name__}: {error}")
    chat.show_trouble()


def unquoted(text: str, *quotes: str) -> str:
    """Return what stands between a pair of one of the quotes, or else the text; no margins."""
    text = text.strip()
    for mark in quotes:
        paired = text.startswith(mark) and text.endswith(mark) and text.count(mark) == 2
        if paired and len(text) >= 2 * len(mark):
            return text[len(mark) : -len(mark)].strip("\n")
    return text


def _run_command(chat: Chat, text: str) -> None:
    name, *rest = text.split(maxsplit=1)
    name = ALIASES.get(name, name)
    if name in COMMANDS:
        COMMANDS[name].run(chat, unquoted("".join(rest), '"""', '"'))
        return
    close = [known for known in COMMANDS if known.startswith(name)]
    if close:
        raise UsageError(f"unknown command {name}; did you mean {', '.join(close)}?")
    raise UsageError(f"unknown command {name}; /help lists all (a message may begin with a space)")


def _help(chat: Chat, _: str) -> None:
    lines = [
        f"  {f'{name} {command.usage}'.strip():<26} {command.summary}"
        for name, command in COMMANDS.items()
    ]
    chat.face.say("\n".join(["Commands", *lines, "", _KEYS]))


def _clear(chat: Chat, _: str) -> None:
    chat.session.clear()
    chat.face.note("[a new conversation, with the same system prompt]")


def _regen(chat: Chat, _: str) -> None:
    chat.regenerate()


def _undo(chat: Chat, _: str) -> None:
    turn = chat.session.undo()
    chat.face.note(f"[removed: {clipped(turn.user, 60)!r} and its reply]")


def _edit(chat: Chat, _: str) -> None:
    before = chat.session.last_turn().user
    after = chat.face.edit(before)
    if after is None:
        chat.session.undo()
        chat.draft = before
        chat.face.note("[your last message is back in the prompt; its reply is removed]")
    elif after.strip() in ("", before.strip()):
        chat.face.note("[nothing changed]")
    else:
        chat.session.undo()
        chat.face.note(f">>> {clipped(after)}")
        chat.send(after.strip())


def _system(chat: Chat, text: str) -> None:
    conversation = chat.session.conversation
    if not text:
        chat.face.say(conversation.system or "no system prompt; /system TEXT sets one")
        return
    conversation.system = "" if text == "none" else text
    chat.session.save_automatically()
    chat.face.note("[system prompt set]" if conversation.system else "[system prompt removed]")


def _set(chat: Chat, text: str) -> None:
    what, _, rest = text.partition(" ")
    if what == "system" and rest.strip():
        _system(chat, unquoted(rest, '"""', '"'))
        return
    if what == "parameter":
        what, _, rest = rest.strip().partition(" ")
    name = what.lstrip("-").replace("-", "_")
    if not name:
        raise UsageError("use /set parameter NAME VALUE or /set system TEXT; /show lists the names")
    if name == "think":
        _set_think(chat, rest.strip())
        return
    if name in RUNTIME:
        flag = "--" + name.replace("_", "-")
        raise UsageError(f"{name} is fixed while a model is loaded; start with {flag}")
    if name not in PARAMETERS:
        raise UsageError(f"unknown parameter {name!r}; known: {', '.join(PARAMETERS)}, think")
    field = PARAMETERS[name]
    if rest.strip():
        chat.session.set_option(field, parse_value(field, rest.strip()))
    chat.face.note(f"[{name} = {_shown(field, getattr(chat.session.settings, field))}]")


def _set_think(chat: Chat, value: str) -> None:
    """Set what is shown of <think> blocks; it is no option of the models."""
    session = chat.session
    if value not in ("", "default", *THINK):
        raise UsageError(f"think: {value!r} is not allowed; use {', '.join(THINK)} or default")
    if value:
        session.think = None if value == "default" else value
    chat.face.note(f"[think = {session.think or session.model.think}]")


def parse_value(name: str, text: str) -> object:
    """Return the value of an option as `/set parameter` takes it; None stands for `default`.

    Args:
        name: a key of GENERATION.
        text: what was typed.

    Raises:
        UsageError: if the text does not stand for a value of that option.
    """
    if text == "default":
        return None
    if name == "stop":
        return _stop_strings(text)
    kind = GENERATION[name][0]
    try:
        if name in ("weight", "logit_bias"):
            parts = [] if text == "none" else text.split()
            return dict(kind.convert(part, None, None) for part in parts)
        return kind.convert(text, None, None)
    except click.BadParameter as error:
        raise UsageError(f"{option_name(name)}: {error.message.rstrip('.')}") from None


def _stop_strings(text: str) -> tuple[str, ...]:
    """Return stop strings given as JSON (one, or a list of them) or as one plain text."""
    if text[0] not in '"[':
        return (text,)
    try:
        value = json.loads(text)
    except ValueError:
        raise UsageError('stop: use one text, or JSON such as ["\\n", "END"]') from None
    return tuple(value) if isinstance(value, list) else (value,)


def _shown(name: str, value: object) -> str:
    """Return an option's value as `/set parameter` would take it."""
    if name == "json_schema" and isinstance(value, dict):
        return clipped(json.dumps(value, ensure_ascii=False))
    if name == "grammar" and value:
        return clipped(str(value))
    if isinstance(value, dict):
        return " ".join(f"{key}={number}" for key, number in value.items()) or "none"
    if isinstance(value, tuple):
        return json.dumps(list(value), ensure_ascii=False) if value else "none"
    return "none" if value is None else str(value)


def _show(chat: Chat, _: str) -> None:
    session = chat.session
    settings, model = session.settings, session.model
    used = session.conversation.context_tokens
    used_text = f"{used:,} of {model.n_ctx:,} tokens used" if used else f"{model.n_ctx:,} tokens"
    rows = [("model", model.name), *((f"  {role}", path) for role, path in model.files.items())]
    rows += [("context", used_text), ("turns", str(len(session.conversation.turns)))]
    rows.append(("system", clipped(session.conversation.system) or "none"))
    rows += [("attached", f"{item.name} ({item.tokens:,} tokens)") for item in session.attachments]
    for name, field in PARAMETERS.items():
        mark = "  (set here)" if field in session.options else ""
        rows.append((name, _shown(field, getattr(settings, field)) + mark))
    mark = "  (set here)" if session.think else ""
    rows.append(("think", (session.think or model.think) + mark))
    width = max(18, *(len(name) for name, _ in rows)) + 2
    chat.face.say("\n".join(f"{name:<{width}}{value}" for name, value in rows))


def _read(chat: Chat, text: str) -> None:
    session = chat.session
    if not text:
        names = ", ".join(item.name for item in session.attachments)
        chat.face.say(f"goes with the next message: {names or 'nothing'}; /read FILE adds a file")
    elif text == "none":
        session.attachments.clear()
        chat.face.note("[no file goes with the next message]")
    else:
        item = session.attach(Path(text).expanduser())
        chat.face.note(f"[{item.name}, {item.tokens:,} tokens, goes with the next message]")


def _save(chat: Chat, text: str) -> None:
    if not text:
        raise UsageError("use /save FILE")
    path = Path(text).expanduser()
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a file")
    if path.exists() and not chat.face.confirm(f"{path} exists; overwrite it?"):
        chat.face.note("[not saved]")
        return
    write_chat(path, chat.session.saved())
    chat.face.note(f"[saved to {path}; /load {path} continues]")


def _load(chat: Chat, text: str) -> None:
    if not text:
        raise UsageError("use /load FILE")
    session = chat.session
    unsaved = session.conversation.turns and session.autosave is None
    if unsaved and not chat.face.confirm("the present conversation is not saved; drop it?"):
        return
    saved = session.restore(Path(text).expanduser())
    chat.draft = saved.unanswered
    chat.recap()
    if saved.entry not in (None, session.model.name):
        chat.face.note(f"[saved with {saved.entry}; /model {saved.entry} switches to it]")


def _model(chat: Chat, text: str) -> None:
    session = chat.session
    if text:
        try:
            session.switch(text)
        except KeyboardInterrupt:
            chat.face.note("[stopped]")
        chat.face.note(f"[{describe_model(chat)}]")
        return
    from ..registry import load_registry

    entries = load_registry(session.arguments.models).entries
    lines = [
        f"{'*' if name == session.model.name else ' '} {name:<20} {entry.description}".rstrip()
        for name, entry in entries.items()
    ]
    if session.arguments.files:
        lines.insert(0, f"* {session.model.name} (from files)")
    chat.face.say("\n".join(lines))


def describe_model(chat: Chat) -> str:
    """Return one line about the model in use."""
    settings, model = chat.session.settings, chat.session.model
    part = settings.part
    speaking = f"alpha {settings.alpha}" if part == "fused" else f"{part} alone"
    return (
        f"{model.name}: {speaking}, temperature {settings.temperature}, "
        f"{model.n_ctx:,} tokens of context"
    )


def _stats(chat: Chat, _: str) -> None:
    session = chat.session
    if session.last is None:
        raise UsageError("no reply yet")
    totals = session.totals
    lines = timing_lines(session.last, session.model.load_seconds, session.model.can_draft)
    lines += [
        f"session     {totals.replies:,} replies, {totals.generated_tokens:,} tokens in "
        f"{totals.generation_seconds:.2f} s",
        f"            {totals.cached_tokens:,} of {totals.prompt_tokens:,} prompt tokens cached",
        f"            {totals.accepted:,} of {totals.drafted:,} drafted tokens accepted",
    ]
    chat.face.say("\n".join(lines))


def _exit(chat: Chat, _: str) -> None:
    chat.leaving = True


COMMANDS = {
    "/help": Command("", "this list", _help),
    "/clear": Command("", "start a new conversation, keep the system prompt", _clear),
    "/regen": Command("", "another reply to the last message", _regen),
    "/undo": Command("", "remove the last message and its reply", _undo),
    "/edit": Command("", "change the last message, in $EDITOR if it is set", _edit),
    "/system": Command("[TEXT]", "show or set the system prompt; none removes it", _system),
    "/set": Command("parameter NAME VALUE", "change an option; VALUE default resets it", _set),
    "/show": Command("", "settings, model files, context used", _show),
    "/read": Command("FILE", "add a file's text to the next message; none drops it", _read),
    "/save": Command("FILE", "write the conversation to a file", _save),
    "/load": Command("FILE", "continue the conversation of a file", _load),
    "/model": Command("[NAME]", "list model entries, or switch and keep the conversation", _model),
    "/stats": Command("", "timings of the last reply and of the session", _stats),
    "/exit": Command("", "leave (also /bye and Ctrl-D)", _exit),
}

PARAMETERS = {option_name(field): field for field in GENERATION}
"""What `/set parameter` calls an option -> its field of GenerationOptions."""

ALIASES = {"/?": "/help", "/bye": "/exit", "/quit": "/exit"}
