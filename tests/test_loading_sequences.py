"""Several generations at once on GGUFs: nobody's text changes but for rounding."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from .conftest import Trio
from .rescoring import NO_END, PROMPT, assert_same_but_for_ties, load

GENERATIONS: list[dict[str, Any]] = [
    {"temperature": 0, "draft": "off"},
    {"temperature": 0, "draft": 5},
    {"temperature": 1.0, "draft": "auto", "seed": 1},
    {"temperature": 1.0, "draft": 3, "seed": 2, "repetition_penalty": 1.1},
    {"temperature": 0.7, "draft": 8, "seed": 3, "top_p": 0.9},
    {"temperature": 0, "draft": "auto"},
    {"temperature": 1.0, "draft": 2, "seed": 5, "top_k": 20},
    {"temperature": 1.0, "draft": "off", "seed": 6, "min_p": 0.02},
]
"""Eight generations with settings of their own."""


@pytest.mark.parametrize("kv_unified", ["auto", "off"])
def test_eight_at_once_say_what_each_says_alone(trio: Trio, kv_unified: str) -> None:
    """Prompts, lengths, drafts and settings differ; all but near-ties are equal."""
    prompts = [PROMPT[: 20 + 4 * i] for i in range(8)]
    lengths = [20 + 7 * ((5 * i) % 8) for i in range(8)]
    with load(trio, ctx=256) as model:
        alone = [
            model.complete(prompt, max_tokens=n, logit_bias=NO_END, **{**options, "draft": "off"})
            for prompt, n, options in zip(prompts, lengths, GENERATIONS, strict=True)
        ]
    with load(trio, ctx=256, parallel=8, kv_unified=kv_unified) as model:
        streams = [
            model.stream_complete(prompt, max_tokens=n, logit_bias=NO_END, **options)
            for prompt, n, options in zip(prompts, lengths, GENERATIONS, strict=True)
        ]
        running = deque(streams)
        most = 0
        while running:
            stream = running.popleft()
            if next(stream, None) is not None:
                running.append(stream)
            most = max(most, len({s._generation.sequence for s in running}))
        together = [stream.completion for stream in streams]
    assert most == 8
    # Near-ties are looked for in rows that nothing was filtered from.
    for done, plain, options in zip(together, alone, GENERATIONS, strict=True):
        if set(options) <= {"temperature", "draft", "seed"}:
            temperature, seed = options["temperature"], options.get("seed", 0)
            assert_same_but_for_ties(trio, done, plain, temperature, seed)
    equal = sum(done.tokens == plain.tokens for done, plain in zip(together, alone, strict=True))
    assert equal >= 6
