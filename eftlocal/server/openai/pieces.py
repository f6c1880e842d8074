"""The bytes of every token of a model, read once; and which tokens a text that was sent holds."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from ...generation import TokenEvent
from ...model import FusedModel
from ...stream import Prepared


@dataclass(frozen=True, slots=True)
class Pieces:
    """The bytes of all tokens of a model.

    A copy, because the model may be unloaded while an answer is still being written.

    Attributes:
        shown: token id -> its bytes, markers included.
        spoken: token id -> the bytes that it adds to a text: nothing for markers.
        eog: ids that end a generation.
    """

    shown: Sequence[bytes]
    spoken: Sequence[bytes]
    eog: frozenset[int]

    def text(self, token: int) -> str:
        """A token as text; what is no whole character is a replacement character."""
        return self.shown[token].decode("utf-8", "replace")

    def join(self, tokens: Sequence[int]) -> str:
        """Several tokens as text, markers included."""
        return b"".join(self.shown[token] for token in tokens).decode("utf-8", "replace")


_known: WeakKeyDictionary[FusedModel, Pieces] = WeakKeyDictionary()


def pieces_of(model: FusedModel) -> Pieces:
    """The pieces of a model; the first call takes some tenths of a second for large vocabularies.

    Any thread may call this.
    """
    if model not in _known:
        vocabulary = model.vocabulary
        shown = [vocabulary.piece(token, special=True) for token in range(vocabulary.n_tokens)]
        markers = vocabulary.control_tokens()
        spoken = [
            vocabulary.piece(token) if token in markers else piece
            for token, piece in enumerate(shown)
        ]
        _known[model] = Pieces(shown, spoken, model.engine.eog)
    return _known[model]


@dataclass(frozen=True, slots=True)
class Placed:
    """A token whose text has been sent.

    Attributes:
        event: the token.
        offset: characters of the completion before it.
    """

    event: TokenEvent
    offset: int


class Placement:
    """Follows a completion and tells which tokens the text that was sent so far holds.

    Text that may become a stop string is held back; so are its tokens here. Tokens that lie wholly
    in a stop string, or behind it, never come, as with OpenAI's API. All others come exactly once,
    an end token and markers included.

    Args:
        pieces: of the model.
        prepared: what is being generated.
    """

    def __init__(self, pieces: Pieces, prepared: Prepared) -> None:
        self._pieces = pieces
        self._visible = prepared.visible
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting: list[Placed] = []
        self._decoded = 0
        self._sent = 0

    def feed(self, event: TokenEvent) -> list[Placed]:
        """Take the next token; returns those that are in the text that was sent by now."""
        token, ends = event.token, event.finish_reason is not None
        self._waiting.append(Placed(event, self._decoded))
        spoken = token not in self._pieces.eog
        table = self._pieces.shown if token in self._visible else self._pieces.spoken
        self._decoded += len(self._decoder.decode(table[token] if spoken else b"", ends))
        self._sent += len(event.text)
        if ends and self._sent >= self._decoded:
            ready, self._waiting = self._waiting, []
            return ready
        count = sum(placed.offset < self._sent for placed in self._waiting)
        ready, self._waiting = self._waiting[:count], self._waiting[count:]
        return ready
