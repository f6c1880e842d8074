"""Replies with traces, made from random logits over a small vocabulary of awkward tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eftlocal.diagnostics import diagnose
from eftlocal.explain import Header, Recorder, Reply
from eftlocal.explain.tracefile import options_json
from eftlocal.generation import TokenEvent
from eftlocal.options import GenerationOptions
from eftlocal.text import TextStream

END = 2
PIECES: tuple[bytes, ...] = (
    b"<unk>", b"<s>", b"<|end|>", b" the", b" sea", b"ship", b".", b"\n", b" ", b"\t",
    b"\xe2", b"\x82", b"\xac", "漢字".encode(), "👩‍🚀".encode(), "é".encode(), b"<b>", b"</span>",
    b"&amp;", b'" onclick="x', b"<script>alert(1)</script>", b"\x1b[31m", b"\x00\x07", b"$text",
    *(f" w{i}".encode() for i in range(40)),
)  # fmt: skip


def header(experts: Sequence[str] = ("tuned",), **options: object) -> Header:
    """What a reply was made with; options as in Python."""
    return Header(
        version="1.2.3",
        model="tiny",
        files={"base": "base.gguf", "tuned": "<tuned>.gguf", "reference": "reference.gguf"},
        experts=tuple(experts),
        options=options_json(GenerationOptions().updated({"trace": True, **options})),
        prompt="<s>Say <b>it</b>",
        prompt_tokens=(1, 5, 6),
    )


def event(
    rng: np.random.Generator, token: int | None, alpha: tuple[float, ...], text: str = ""
) -> TokenEvent:
    """One token with a trace of random logits; the likeliest token where none is given."""
    n, v = len(alpha), len(PIECES)
    logits = 3 * rng.normal(size=v) + 0.8 * rng.normal(size=(1 + 2 * n, v))
    logits[:, END] -= 30  # or else greedy replies would end in the middle
    base, *small = logits.astype(np.float32)
    tuned, reference = small[:n], small[n:]
    fused = base + sum(
        np.float32(a) * (t - q) for a, t, q in zip(alpha, tuned, reference, strict=True)
    )
    token = int(np.argmax(fused)) if token is None else token
    log_z = float(np.log(np.exp(fused.astype(np.float64)).sum()))
    trace = diagnose(base, tuned, reference, fused, alpha, token)
    return TokenEvent(token, float(fused[token]) - log_z, alpha, trace=trace, text=text)


def events(
    tokens: Sequence[int | None], alphas: Sequence[tuple[float, ...]], seed: int = 0
) -> list[TokenEvent]:
    """Tokens as a stream yields them, characters that span tokens coming with their last one."""
    rng = np.random.default_rng(seed)
    stream = TextStream()
    found = []
    for i, (token, alpha) in enumerate(zip(tokens, alphas, strict=True)):
        made = event(rng, token, alpha)
        final = i == len(tokens) - 1
        piece = b"" if made.token == END else PIECES[made.token]
        text = stream.feed(piece, final=final)
        reason = "stop" if final else None
        found.append(TokenEvent(made.token, made.logprob, made.alpha, trace=made.trace,
                                text=text, finish_reason=reason))  # fmt: skip
    return found


def reply(
    tokens: Sequence[int | None],
    alphas: Sequence[tuple[float, ...]] | None = None,
    made_with: Header | None = None,
    seed: int = 0,
) -> Reply:
    """A reply of these tokens (None is the likeliest) at these alphas (1 without them)."""
    made_with = made_with or header()
    alphas = alphas or [(1.0,) * len(made_with.experts)] * len(tokens)
    recorder = Recorder(made_with, PIECES.__getitem__)
    for item in events(tokens, alphas, seed):
        recorder.take(item)
    return recorder.reply()
