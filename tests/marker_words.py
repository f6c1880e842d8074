"""A small vocabulary with the markers of tool calls, as control tokens or as plain text."""

from __future__ import annotations

import re

from eftlocal.toolcalls.formats import CALL_ID, DEEPSEEK, HERMES, LLAMA, MISTRAL, PHI

MARKERS = (
    *(*HERMES.opens, *HERMES.closes, *LLAMA.opens, *PHI.opens, *PHI.closes),
    *(*MISTRAL.opens, MISTRAL.separator, CALL_ID),
    *(DEEPSEEK.opens[0].removesuffix(DEEPSEEK.opens[1]), DEEPSEEK.opens[1]),
    *(*DEEPSEEK.closes, DEEPSEEK.separator),
)
_TEXTS = (
    *(bytes([i]) for i in range(256)),
    b'"}',
    b"}}",
    b"}}\n</",
    b'": "',
    b'{"',
    b'"}}\n</tool',
)


class Words:
    """All bytes, some pieces that cross the borders of JSON, markers, and an end token.

    Args:
        has_markers: markers are control tokens; else they are written in letters.
    """

    def __init__(self, has_markers: bool) -> None:
        self.markers = MARKERS if has_markers else ()
        self.n_tokens = len(_TEXTS) + len(self.markers) + 1
        self.eog = frozenset({self.n_tokens - 1})

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of a token."""
        if token < len(_TEXTS):
            return _TEXTS[token]
        text = "<end>" if token in self.eog else self.markers[token - len(_TEXTS)]
        return text.encode() if special else b""

    def is_control(self, token: int) -> bool:
        """Whether it is a marker or the end."""
        return token >= len(_TEXTS)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Ids of a text, the longest pieces first."""
        assert parse_special
        assert not add_special
        ids: list[int] = []
        pattern = "|".join(map(re.escape, self.markers)) or "$."
        for part in re.split(f"({pattern})", text):
            if part in self.markers:
                ids.append(len(_TEXTS) + self.markers.index(part))
                continue
            rest = part.encode()
            while rest:
                piece = max((piece for piece in _TEXTS if rest.startswith(piece)), key=len)
                ids.append(_TEXTS.index(piece))
                rest = rest[len(piece) :]
        return ids

    def text(self, ids: list[int], visible: frozenset[int]) -> str:
        """The text of ids, in which markers are empty that are not visible."""
        return b"".join(self.piece(token, special=token in visible) for token in ids).decode()
