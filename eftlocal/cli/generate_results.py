"""The results of `eftlocal generate`: completions -> lines of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import EftlocalError
from .generate_input import URLS, Item, Line, Manner, seed_of

if TYPE_CHECKING:
    from .. import Completion

_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
"""Characters at which some readers of JSON lines would end a line."""


class Writer:
    """Results as text.

    Args:
        manner: how they are written.
        model: what it is called.
        seed: of the command.
    """

    def __init__(self, manner: Manner, model: str, seed: int) -> None:
        self._manner = manner
        self._model = model
        self._seed = seed

    def text(self, item: Item, outcomes: Sequence[Completion | EftlocalError]) -> str:
        """One line of JSON, without its end."""
        failed = error_of(outcomes)
        if failed is None and self._manner.as_messages:
            assert isinstance(item.line.prompt, list)
            found: dict[str, Any] = {"messages": [*item.line.prompt, _reply(_first(outcomes))]}
        elif item.line.url:
            found = self._openai(item.line, outcomes, failed)
        elif failed is None:
            found = self._own(item, _first(outcomes))
        else:
            name = {"id": item.line.id, "index": item.line.index}
            name |= {"sample": item.samples[0]} if item.line.samples > 1 else {}
            error = {"message": str(failed), "type": type(failed).__name__}
            found = {**name, **item.line.more, "error": error}
        text = json.dumps(found, ensure_ascii=False, allow_nan=False)
        return text.translate(_LINE_ENDS)

    def _own(self, item: Item, completion: Completion) -> dict[str, Any]:
        line, sample = item.line, item.samples[0]
        text: dict[str, Any] = {"text": completion.text}
        if not isinstance(line.prompt, str) and completion.answer != completion.text:
            text = {"text": completion.answer, "thinking": completion.thinking}
        found = {
            "id": line.id,
            "index": line.index,
            **({"sample": sample} if line.samples > 1 else {}),
            **line.more,
            **text,
            "finish_reason": completion.finish_reason,
            "prompt_tokens": len(completion.prompt_tokens),
            "completion_tokens": len(completion.tokens),
            "model": self._model,
            "seed": seed_of(line, sample, self._seed),
        }
        if self._manner.logprobs:
            found["tokens"] = list(completion.tokens)
            found["logprobs"] = [x if math.isfinite(x) else None for x in completion.logprobs]
            found["alphas"] = [list(alpha) for alpha in completion.alphas]
        return found

    def _openai(
        self,
        line: Line,
        outcomes: Sequence[Completion | EftlocalError],
        failed: EftlocalError | None,
    ) -> dict[str, Any]:
        """A line of the output of OpenAI's batch API; the time is left out, as it is 0."""
        name = {"id": f"batch_req_{line.index}", "custom_id": line.id}
        if failed is not None:
            error = {"code": type(failed).__name__, "message": str(failed)}
            return {**name, "response": None, "error": error}
        is_chat = URLS[line.url] == "messages"
        done = [outcome for outcome in outcomes if not isinstance(outcome, EftlocalError)]
        choices = [
            {
                "index": i,
                **({"message": _reply(one)} if is_chat else {"text": one.text}),
                "logprobs": None,
                "finish_reason": one.finish_reason,
            }
            for i, one in enumerate(done)
        ]
        n_prompt, n_new = len(done[0].prompt_tokens), sum(len(one.tokens) for one in done)
        body = {
            "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{line.index}",
            "object": "chat.completion" if is_chat else "text_completion",
            "created": 0,
            "model": self._model,
            "choices": choices,
            "usage": {
                "prompt_tokens": n_prompt,
                "completion_tokens": n_new,
                "total_tokens": n_prompt + n_new,
            },
        }
        response = {"status_code": 200, "request_id": f"req_{line.index}", "body": body}
        return {**name, "response": response, "error": None}


def error_of(outcomes: Sequence[Completion | EftlocalError]) -> EftlocalError | None:
    """The first thing that went wrong with an item, if anything did."""
    return next((one for one in outcomes if isinstance(one, EftlocalError)), None)


def _first(outcomes: Sequence[Completion | EftlocalError]) -> Completion:
    (outcome,) = outcomes
    assert not isinstance(outcome, EftlocalError)
    return outcome


def _reply(completion: Completion) -> dict[str, Any]:
    """The assistant's message; thinking stands beside the answer, as the APIs have it."""
    thinking = {"reasoning_content": completion.thinking} if completion.thinking else {}
    return {"role": "assistant", "content": completion.answer, **thinking}
