"""The input of `eftlocal generate`: lines of JSON or text -> prompts with options."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from ..errors import EftlocalError, UsageError
from ..options import GenerationOptions, option_name
from ..textfiles import json_value

if TYPE_CHECKING:
    from .. import FusedModel
    from ..stream import Prepared

MAX_SAMPLES = 256

_OPTIONS = {option_name(item.name) for item in fields(GenerationOptions)} - {
    "trace",
    "top_logprobs",
}
_OWN = {"id", "prompt", "messages", "n", "metadata"}
_WITHOUT_MEANING = {"model", "user", "metadata", "store", "stream"}
"""Fields of an OpenAI body that change nothing here."""
URLS = {"/v1/chat/completions": "messages", "/v1/completions": "prompt"}
"""Of OpenAI's API -> what a body has there."""
# A number of 53 bits is exact in every JSON reader.
_SEED_BITS = 53


@dataclass(frozen=True, slots=True)
class Manner:
    """How lines are read and written.

    Attributes:
        as_messages: write conversations, ready for fine-tuning.
        logprobs: write tokens, their log-probabilities and alphas.
        samples: how many texts a prompt gets that does not say so itself.
        plain: the input is plain text: "chat" or "raw"; None for JSON.
        system: the system prompt of conversations that have none.
    """

    as_messages: bool
    logprobs: bool
    samples: int
    plain: str | None
    system: str | None


@dataclass(frozen=True, slots=True)
class Line:
    """One prompt of the input.

    Attributes:
        id: its own, or the number of its line, from 1.
        index: how many prompts come before it.
        prompt: a text to be continued, or a conversation.
        options: changes to the generation options.
        samples: how many texts are wanted.
        more: what its results repeat.
        url: where OpenAI's API would take it; "" for a line of our own form.
        error: why there is nothing to run.
    """

    id: Any
    index: int
    prompt: str | list[dict[str, Any]] = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 1
    more: Mapping[str, Any] = field(default_factory=dict)
    url: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """What becomes one line of the output: some of the texts of a prompt."""

    line: Line
    samples: range


def read_lines(content: bytes, manner: Manner) -> Iterator[Line]:
    """The prompts of an input, those that are wrong included; empty lines are left out."""
    index = 0
    for number, data in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        data = data.removesuffix(b"\r")
        if data.strip():
            yield _read(data, number, index, manner)
            index += 1


def items_of(lines: Iterable[Line], manner: Manner) -> Iterator[Item]:
    """One item per line of the output: OpenAI's form has all texts of a prompt in one."""
    for line in lines:
        if line.error or (line.url and not manner.as_messages):
            yield Item(line, range(line.samples))
        else:
            yield from (Item(line, range(i, i + 1)) for i in range(line.samples))


def _read(data: bytes, number: int, index: int, manner: Manner) -> Line:
    """One line; a mistake becomes its error."""
    line = Line(number, index, samples=manner.samples)
    try:
        text = data.decode("utf-8")
        if manner.plain is not None:
            line = replace(line, prompt=text if manner.plain == "raw" else _question(text))
        else:
            found = json_value(text)
            if not isinstance(found, dict):
                raise UsageError(f'not a JSON object, such as {{"prompt": {brief(text)}}}')
            is_openai = "custom_id" in found or "body" in found
            name = found.get("custom_id" if is_openai else "id")
            # An error has OpenAI's form, too, whatever the url is.
            line = replace(
                line, id=number if name is None else name, url=next(iter(URLS)) * is_openai
            )
            line = _openai(line, found) if is_openai else _own(line, found)
        return _with_system(line, manner)
    except UsageError as error:
        return replace(line, samples=1, error=str(error))
    except UnicodeDecodeError:
        return replace(line, samples=1, error="not UTF-8 text")
    except ValueError as error:
        return replace(line, samples=1, error=f"not JSON: {error}")


def brief(text: str) -> str:
    """The beginning of a text as JSON."""
    return json.dumps(text if len(text) <= 30 else f"{text[:27]}...", ensure_ascii=False)


def _question(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def _own(line: Line, found: dict[str, Any]) -> Line:
    """A line with a prompt or messages, and options under their usual names."""
    metadata = found.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise UsageError("metadata is not an object")
    line = _prompted(line, found, _OWN | _OPTIONS)
    options = {name: value for name, value in found.items() if name in _OPTIONS}
    return replace(
        line, options=_biased(options), more={} if metadata is None else {"metadata": metadata}
    )


def _openai(line: Line, found: dict[str, Any]) -> Line:
    """A line of OpenAI's batch API: custom_id, method, url and body."""
    _refuse_unknown(found, {"custom_id", "method", "url", "body"})
    url, body = found.get("url"), found.get("body")
    if not isinstance(url, str) or url not in URLS:
        raise UsageError(f"url is not one of {', '.join(URLS)}")
    if not isinstance(body, dict):
        raise UsageError("body is not an object")
    if body.get("stream"):
        raise UsageError("stream = true is not possible in a batch")
    most = {"max_completion_tokens"} if url.endswith("chat/completions") else set()
    line = _prompted(line, body, _OPTIONS | _WITHOUT_MEANING | most | {URLS[url], "n"})
    options = {name: value for name, value in body.items() if name in _OPTIONS}
    if body.get("max_completion_tokens") is not None:
        options["max_tokens"] = body["max_completion_tokens"]
    return replace(line, options=_biased(options), url=url)


def _prompted(line: Line, found: dict[str, Any], known: set[str]) -> Line:
    _refuse_unknown(found, known)
    prompts = [found[name] for name in ("prompt", "messages") if found.get(name) is not None]
    if len(prompts) != 1:
        said = "both prompt and messages are given" if prompts else "neither prompt nor messages"
        raise UsageError(f"{said}; give one of them")
    if found.get("prompt") is not None and not isinstance(prompts[0], str):
        raise UsageError("prompt is not a text")
    if found.get("messages") is not None and not isinstance(prompts[0], list):
        raise UsageError("messages is not a list")
    samples = line.samples if found.get("n") is None else found["n"]
    is_count = isinstance(samples, int) and not isinstance(samples, bool)
    if not is_count or not 1 <= samples <= MAX_SAMPLES:
        raise UsageError(f"n is not a whole number from 1 to {MAX_SAMPLES}")
    return replace(line, prompt=prompts[0], samples=samples)


def _refuse_unknown(found: Mapping[str, Any], known: set[str]) -> None:
    for name in found:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"unknown field {brief(name)}{hint}")


def _biased(options: dict[str, Any]) -> dict[str, Any]:
    """Options whose biases have numbers as keys, which JSON does not have."""
    biases = options.get("logit_bias")
    if isinstance(biases, dict) and all(key.isdecimal() for key in biases):
        options["logit_bias"] = {int(key): bias for key, bias in biases.items()}
    return options


def _with_system(line: Line, manner: Manner) -> Line:
    if isinstance(line.prompt, str):
        if manner.as_messages:
            raise UsageError("a prompt is no conversation: --format messages needs messages")
        return line
    first = line.prompt[0] if line.prompt else None
    has_own = isinstance(first, dict) and first.get("role") in ("system", "developer")
    if manner.system is None or has_own:
        return line
    return replace(line, prompt=[{"role": "system", "content": manner.system}, *line.prompt])


def seed_of(line: Line, sample: int, seed: int) -> Any:
    """The seed of a text: of the line itself, or made from the command's and the line's index."""
    own = line.options.get("seed")
    if own is not None and (sample == 0 or not isinstance(own, int)):
        return own
    start = f"{seed} {line.index}" if own is None else f"{own}"
    number = hashlib.sha256(f"{start} {sample}".encode()).digest()
    return int.from_bytes(number[:8]) >> (64 - _SEED_BITS)


def prepare(model: FusedModel, line: Line, seed: Any) -> Prepared:
    """Make a line a request.

    Raises:
        EftlocalError: whatever is wrong with it, so that other lines go on.
    """
    if line.error:
        raise UsageError(line.error)
    options = {**line.options, "seed": seed}
    try:
        if isinstance(line.prompt, str):
            return model.prepare_complete(line.prompt, **options)
        return model.prepare_chat(line.prompt, **options)
    except EftlocalError:
        raise
    except Exception as error:
        raise EftlocalError(f"internal error: {type(error).__name__}: {error}") from error
