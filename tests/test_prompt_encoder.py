"""Generated replies keep their token ids where that is sure to be right, and only there."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eftlocal.prompts import PromptEncoder

MARKERS = ("<s>", "</s>", "<user>", "<end>")
PIECES = (*MARKERS, "abc", "ab", "bc", "a", "b", "c", "<", ">", "s", "/", "u", "e", "r", "n", "d")
BOS = 0
letters = st.text("abc", max_size=8)


class ToyTokenizer:
    """A whole tokenizer of 19 pieces: the longest piece that fits comes next."""

    def __init__(self, bos: int = BOS, add_bos: bool = True) -> None:
        self.bos = bos
        self.add_bos = add_bos

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Ids of a text."""
        ids = [self.bos] if add_special and self.add_bos else []
        usable = PIECES if parse_special else PIECES[len(MARKERS) :]
        while text:
            piece = max((p for p in usable if text.startswith(p)), key=len)
            ids.append(PIECES.index(piece))
            text = text[len(piece) :]
        return ids

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Bytes of a token."""
        assert 0 <= token < len(PIECES)
        return b"" if self.is_control(token) and not special else PIECES[token].encode()

    def is_control(self, token: int) -> bool:
        """Whether it is a marker."""
        return token < len(MARKERS)


def ids_of(*pieces: str) -> tuple[int, ...]:
    """The ids of pieces."""
    return tuple(PIECES.index(piece) for piece in pieces)


def text_of(ids: Sequence[int]) -> str:
    """The text of ids, markers included."""
    return "".join(PIECES[token] for token in ids)


PROMPT = "<user>abc<end>"
FIRST = ids_of("<s>", "<user>", "abc", "<end>")


def after_a_reply() -> PromptEncoder:
    """An encoder whose model answered `abc` as `a`, `bc`, which would be tokenized as `abc`."""
    encoder = PromptEncoder(ToyTokenizer())
    assert encoder.encode(PROMPT) == FIRST
    encoder.remember(PROMPT, FIRST, "abc", ids_of("a", "bc"))
    return encoder


def test_a_reply_keeps_its_ids_before_a_marker() -> None:
    """The next turn begins with exactly what the caches hold."""
    encoder = after_a_reply()
    wanted = (*FIRST, *ids_of("a", "bc", "<end>", "<user>", "ab", "<end>"))
    assert encoder.encode(PROMPT + "abc<end><user>ab<end>") == wanted


REST = {
    "letters": ("c<end>", ids_of("abc", "c", "<end>")),
    "what begins like a marker": ("<u", ids_of("abc", "<", "u")),
    "nothing": ("", ids_of("abc")),
}


@pytest.mark.parametrize(("rest", "wanted"), REST.values(), ids=REST)
def test_without_a_marker_all_is_tokenized_again(rest: str, wanted: tuple[int, ...]) -> None:
    """Letters after the reply might belong to its last token."""
    assert after_a_reply().encode(PROMPT + "abc" + rest) == (*FIRST, *wanted)


def test_another_text_is_tokenized_again() -> None:
    """A reply that a template or a user changed is not the remembered one."""
    encoder = after_a_reply()
    changed = (*FIRST, *ids_of("ab", "<end>"))
    assert encoder.encode(PROMPT + "ab<end>") == changed
    assert encoder.encode("<user>ab<end>") == ids_of("<s>", "<user>", "ab", "<end>")


def test_a_regenerated_reply_has_its_own_ids() -> None:
    """Of two replies to one prompt each keeps its ids."""
    encoder = after_a_reply()
    encoder.remember(PROMPT, FIRST, "bc", ids_of("b", "c"))
    assert encoder.encode(PROMPT + "bc<end>") == (*FIRST, *ids_of("b", "c", "<end>"))
    assert encoder.encode(PROMPT + "abc<end>") == (*FIRST, *ids_of("a", "bc", "<end>"))


def test_conversations_side_by_side_are_remembered_and_old_ones_forgotten() -> None:
    """As many as the capacity says at least; memory does not grow with conversations."""
    encoder = PromptEncoder(ToyTokenizer(), capacity=3)
    texts = [f"<user>{'a' * n}<end>" for n in range(1, 40)]
    for text in texts:
        encoder.remember(text, encoder.encode(text), "abc", ids_of("a", "bc"))
    kept = [text for text in texts if ids_of("bc")[0] in encoder.encode(text + "abc<end>")]
    assert kept[-3:] == texts[-3:]
    assert len(kept) <= 6


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.tuples(letters, st.lists(st.sampled_from(PIECES[4:10]), max_size=6))))
def test_every_turn_extends_the_cache(turns: list[tuple[str, list[str]]]) -> None:
    """Any conversation: the ids spell the text and begin with the last turn's prompt and reply."""
    encoder, text = PromptEncoder(ToyTokenizer()), "<s>"
    held: tuple[int, ...] = ()
    for question, reply in turns:
        text += f"<user>{question}<end>"
        ids = encoder.encode(text)
        assert text_of(ids) == text
        assert ids[: len(held)] == held
        held = (*ids, *ids_of(*reply))
        encoder.remember(text, ids, "".join(reply), ids_of(*reply))
        text += "".join(reply) + "</s>"


STARTS = {
    "added": (ToyTokenizer(), "ab", ids_of("<s>", "ab")),
    "printed by the template": (ToyTokenizer(), "<s>ab", ids_of("<s>", "ab")),
    "printed where the model adds none": (ToyTokenizer(add_bos=False), "<s>a", ids_of("<s>", "a")),
    "not wanted": (ToyTokenizer(add_bos=False), "ab", ids_of("ab")),
    "no such token": (ToyTokenizer(bos=-1, add_bos=False), "ab", ids_of("ab")),
    "within the text": (ToyTokenizer(), "a<s>", ids_of("<s>", "a", "<s>")),
}


@pytest.mark.parametrize(("tokenizer", "text", "wanted"), STARTS.values(), ids=STARTS)
def test_one_beginning_of_sequence(
    tokenizer: ToyTokenizer, text: str, wanted: tuple[int, ...]
) -> None:
    """BOS stands at the start once, whether the template or the tokenizer puts it there."""
    assert PromptEncoder(tokenizer).encode(text) == wanted


def test_threads_encode_and_remember_at_once() -> None:
    """What one thread remembers never disturbs another that looks for it."""
    encoder, stop = PromptEncoder(ToyTokenizer(), capacity=500), threading.Event()
    failed: list[Exception] = []

    def remember() -> None:
        while not stop.is_set():
            encoder.remember("<user>b<end>", FIRST, "b", ids_of("b"))

    def encode() -> None:
        try:
            for _ in range(300):
                assert text_of(encoder.encode("<user>a<end>b<end>")) == "<s><user>a<end>b<end>"
        except Exception as error:
            failed.append(error)

    writers = [threading.Thread(target=remember) for _ in range(2)]
    readers = [threading.Thread(target=encode) for _ in range(3)]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    for thread in (*writers, *readers):
        thread.start()
    for thread in readers:
        thread.join()
    stop.set()
    for thread in writers:
        thread.join()
    sys.setswitchinterval(usual)
    assert failed == []
