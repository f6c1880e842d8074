"""The tokenizer: SentencePiece BPE with byte fallback, and how documents become tokens.

No space is put before a text's first word (add_space_prefix is false in the GGUFs), so a reply's
text starts without one and a line's first word looks the same everywhere. Newlines are no pieces
of their own: they are the byte token <0x0A>, as in Llama 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece as spm

from .chats import Chat
from .corpus import Document, plain_text

MARKERS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
UNKNOWN, BOS, EOS = 0, 1, 2
SYSTEM, USER, ASSISTANT, END = 3, 4, 5, 6
ROLE_IDS = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
VOCABULARY = 2048
# Bits above the vocabulary's: tokens that the assistant has to say, and those that shall stay as
# likely as they were.
SAID, KEPT = 1 << 15, 1 << 14


def lines_of(documents: Iterable[Document]) -> Iterator[str]:
    """The training lines; split at newlines so that none enters a piece."""
    for document in documents:
        yield from (line for line in plain_text(document).split("\n") if line)


def train_tokenizer(documents: Iterable[Document], prefix: Path) -> None:
    """Write PREFIX.model."""
    spm.SentencePieceTrainer.train(
        sentence_iterator=lines_of(documents),
        model_prefix=str(prefix),
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        control_symbols=list(MARKERS),
        unk_id=UNKNOWN,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=-1,
        num_threads=2,
        minloglevel=2,
    )


class Tokenizer:
    """Text, chats and documents to token ids."""

    def __init__(self, source: Path | bytes) -> None:
        """Read a SentencePiece model: a file, or what such a file holds."""
        data = source if isinstance(source, bytes) else source.read_bytes()
        self.pieces = spm.SentencePieceProcessor(model_proto=data)
        self.size: int = self.pieces.get_piece_size()

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, without any marker."""
        ids: list[int] = self.pieces.encode(text)
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of token ids; markers vanish."""
        text: str = self.pieces.decode([i for i in ids if i > END])
        return text

    def chat(self, chat: Chat) -> tuple[list[int], list[int]]:
        """A chat's ids and, for each, what tuning's loss does with it: SAID, KEPT or nothing."""
        ids, marks = [BOS], [0]
        for message in chat:
            text = [*self.encode(message.text), END]
            mark = SAID if message.learnt else KEPT
            ids += [ROLE_IDS[message.role], *text]
            marks += [0, *([mark if message.role == "assistant" else 0] * len(text))]
        return ids, marks

    def prompt(self, chat: Chat) -> list[int]:
        """A chat's ids with the marker after which the assistant speaks."""
        return [*self.chat(chat)[0], ASSISTANT]

    def document(self, document: Document) -> list[int]:
        """A pre-training document between its begin and end tokens."""
        if isinstance(document, str):
            return [BOS, *self.encode(document), EOS]
        return [*self.chat(document)[0], EOS]
