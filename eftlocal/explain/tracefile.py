"""Trace files: replies and the distributions that each of their tokens came from, as JSON lines.

A file holds one reply after another. Each begins with a header line,

    {"format": "eftlocal-trace", "version": 1, "eftlocal": its version, "model": name,
     "files": {role: file name}, "experts": [names], "options": {generation option: value},
     "prompt": the base's prompt as text, "prompt_tokens": [ids]}

and goes on with one line per token:

    {"index": 0, 1, ..., "token": id, "text": what it added to the text, "logprob": log F,
     "from_draft": bool, "finish_reason": null, "stop" or "length",
     "trace": the fields of `diagnostics.Trace`, those of `ModelTrace` within,
     "pieces": {id: text} of the ids in the trace that no earlier line of the reply has}

Numbers that JSON does not have are null: -inf among log-probs, inf among divergences.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from .. import __version__
from ..diagnostics import Trace
from ..errors import EftlocalError, UsageError
from ..generation import Request, TokenEvent
from ..options import GenerationOptions, option_name
from .records import FORMAT, Header, Reply, TracedToken, pieces_from_json

if TYPE_CHECKING:
    from ..model import FusedModel
    from ..stream import Stream

Piece = Callable[[int], bytes]
"""Token id -> its bytes."""


def piece_text(piece: bytes) -> str:
    """A token's bytes as text; a part of a character, which is no text by itself, as escapes."""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in piece)


def header_of(model: FusedModel, request: Request) -> Header:
    """What a reply is made with."""
    ids = request.prompts[model.engine.ensemble.roles.base]
    prompt = b"".join(model.vocabulary.piece(token, special=True) for token in ids)
    return Header(
        version=__version__,
        model=model.name,
        files={role: Path(path).name for role, path in model.files.items()},
        experts=tuple(model.experts),
        options=options_json(request.options),
        prompt=prompt.decode("utf-8", "replace"),
        prompt_tokens=tuple(ids),
    )


def options_json(options: GenerationOptions) -> dict[str, Any]:
    """All options by the names that they have outside of Python."""
    values = {option_name(name): value for name, value in asdict(options).items()}
    values["logit_bias"] = {str(token): bias for token, bias in options.logit_bias.items()}
    values["weight"] = dict(options.weight)
    values["stop"] = list(options.stop)
    return values


class Recorder:
    """Keeps a reply with its traces while it is generated.

    Args:
        header: what it is made with.
        piece: the bytes of a token, markers included.
    """

    def __init__(self, header: Header, piece: Piece) -> None:
        self._header = header
        self._piece = piece
        self._tokens: list[TracedToken] = []
        self._pieces: dict[int, str] = {}

    def take(self, event: TokenEvent) -> tuple[TracedToken, dict[int, str]]:
        """Keep a token; returns it with the texts of ids that no earlier token has named.

        Raises:
            UsageError: for events without a trace.
        """
        if event.trace is None:
            raise UsageError("there is no trace: generate the reply with trace=True")
        token = TracedToken(
            index=len(self._tokens),
            token=event.token,
            text=event.text,
            logprob=event.logprob,
            from_draft=event.from_draft,
            finish_reason=event.finish_reason,
            trace=event.trace,
        )
        new = sorted(named_ids(event.token, event.trace) - self._pieces.keys())
        pieces = {i: piece_text(self._piece(i)) for i in new}
        self._tokens.append(token)
        self._pieces |= pieces
        return token, pieces

    def reply(self) -> Reply:
        """What was kept so far."""
        return Reply(self._header, tuple(self._tokens), dict(self._pieces))


def record(model: FusedModel, stream: Stream) -> Recorder:
    """A recorder that keeps every event of a stream."""
    recorder = Recorder(header_of(model, stream.request), model_piece(model))

    def keep(event: TokenEvent) -> None:
        recorder.take(event)

    stream.on_event(keep)
    return recorder


class TraceWriter:
    """Appends replies to a trace file, each line at once.

    Args:
        path: a new file, or a trace file.

    Raises:
        UsageError: where it is another kind of file.
        EftlocalError: where it cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._recorder: Recorder | None = None
        self._header: Header | None = None
        ends_line = _check_appendable(self._path)
        try:
            self._file = self._path.open("a", encoding="utf-8", newline="\n")
            if not ends_line:
                self._file.write("\n")
        except OSError as error:
            _cannot("write", self._path, error)

    def follow(
        self,
        model: FusedModel,
        stream: Stream,
        on_failure: Callable[[EftlocalError], None] | None = None,
    ) -> None:
        """Write a reply while its stream, which must not have begun, is read.

        Args:
            model: whose stream it is.
            stream: started with trace=True.
            on_failure: called once where writing fails, and the stream goes on; without it the
                error ends the stream.
        """
        self.begin(header_of(model, stream.request), model_piece(model))
        failed = False

        def write(event: TokenEvent) -> None:
            nonlocal failed
            if failed:
                return
            try:
                self.write(event)
            except EftlocalError as error:
                failed = True
                if on_failure is None:
                    raise
                on_failure(error)

        stream.on_event(write)

    def begin(self, header: Header, piece: Piece) -> None:
        """Begin a reply; its header is written with its first token.

        Args:
            header: what the reply is made with.
            piece: the bytes of a token, markers included.
        """
        self._recorder = Recorder(header, piece)
        self._header = header

    def write(self, event: TokenEvent) -> None:
        """Write a token.

        Raises:
            UsageError: before `begin`, and for events without a trace.
            EftlocalError: where the file cannot be written.
        """
        if self._recorder is None:
            raise UsageError("begin a reply before its tokens are written")
        token, pieces = self._recorder.take(event)
        if self._header is not None:
            self._write(self._header.to_json())
            self._header = None
        self._write({**token.to_json(), "pieces": pieces})

    def _write(self, content: dict[str, Any]) -> None:
        if self._file.closed:
            raise UsageError(f"the trace {self._path} is closed")
        try:
            self._file.write(json.dumps(content, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            _cannot("write", self._path, error)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def named_ids(token: int, trace: Trace) -> set[int]:
    """The ids whose texts belong to a token's line."""
    views = (trace.base, trace.fused, *trace.tuned, *trace.reference)
    return {token, *trace.ids, *(view.top for view in views)}


def model_piece(model: FusedModel) -> Piece:
    """The bytes of a model's tokens, markers included."""
    return lambda token: model.vocabulary.piece(token, special=True)


def _cannot(do: str, path: Path, error: OSError) -> NoReturn:
    raise EftlocalError(f"cannot {do} {path}: {error.strerror or error}") from None


def _check_appendable(path: Path) -> bool:
    """Whether a line can be appended as it is; only trace files are appended to."""
    try:
        with path.open("rb") as file:
            first = file.readline(1 << 20)
            if not first:
                return True
            file.seek(-1, 2)
            ends_line = file.read(1) == b"\n"
    except FileNotFoundError:
        return True
    except OSError as error:
        _cannot("write", path, error)
    if f'"{FORMAT}"'.encode() not in first:
        raise UsageError(f"{path} exists and is no trace; name another file for the trace")
    return ends_line


def read_trace(path: str | Path) -> tuple[Reply, ...]:
    """Read all replies of a trace file; a line that was cut off at the end of a reply is left out.

    Raises:
        UsageError: one line that says what is wrong with its content, and where.
        EftlocalError: where it cannot be read.
    """
    path = Path(path)
    replies: list[_Growing] = []
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    _read_line(replies, line, f"{path}, line {number}")
    except OSError as error:
        _cannot("read", path, error)
    if not replies:
        raise UsageError(f"{path} is no trace: it is empty")
    return tuple(reply.finished() for reply in replies)


class _Growing:
    """A reply while its lines are read."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.tokens: list[TracedToken] = []
        self.pieces: dict[int, str] = {}
        self.is_cut = False

    def add(self, content: object) -> None:
        token = TracedToken.from_json(content)
        if token.index != len(self.tokens):
            raise UsageError(f"token {token.index} where token {len(self.tokens)} should be")
        if len(token.trace.alpha) != len(self.header.experts):
            raise UsageError("as many alphas as the header names experts are needed")
        self.pieces |= pieces_from_json(content)
        if not named_ids(token.token, token.trace) <= self.pieces.keys():
            raise UsageError("texts of token ids are missing")
        self.tokens.append(token)

    def finished(self) -> Reply:
        return Reply(self.header, tuple(self.tokens), self.pieces, self.is_cut)


def _read_line(replies: list[_Growing], line: str, place: str) -> None:
    """Add one line to what was read."""
    try:
        content = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError):
        if not replies or replies[-1].is_cut:
            raise UsageError(f"{place}: no trace, which is made of JSON lines") from None
        replies[-1].is_cut = True
        return
    try:
        if not replies or (isinstance(content, dict) and "format" in content):
            replies.append(_Growing(Header.from_json(content)))
        else:
            replies[-1].add(content)
    except UsageError as error:
        raise UsageError(f"{place}: no trace of this version ({error})") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)
