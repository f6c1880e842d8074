"""The bodies of all requests of OpenAI's API, and of the token routes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from .body import Body
from .fields import MAX_CHOICES, AtLeastOne, CommonFields, Ignored, Name, Switch, Top

# A long list with something wrong in it must not cost an error for each of its items.
Texts = Annotated[list[str], Field(max_length=MAX_CHOICES, fail_fast=True)]
LongText = Annotated[str, Field(max_length=1_000_000)] | None
Ids = Annotated[list[int], Field(fail_fast=True)]
Lists = Annotated[list[Ids], Field(max_length=MAX_CHOICES, fail_fast=True)]
Messages = Annotated[list[dict[str, Any]], Field(min_length=1, max_length=10_000, fail_fast=True)]
Tools = Annotated[list[dict[str, Any]], Field(max_length=256, fail_fast=True)] | None


def _kind(prompt: object) -> str:
    """Which form a prompt has, told by its first item."""
    if not isinstance(prompt, list):
        return "text"
    first = prompt[0] if prompt else ""
    if isinstance(first, str):
        return "texts"
    return "lists" if isinstance(first, list) else "ids"


Prompts = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[Texts, Tag("texts")]
    | Annotated[Ids, Tag("ids")]
    | Annotated[Lists, Tag("lists")],
    Discriminator(_kind),
]


class ChatRequest(CommonFields):
    """A request to /v1/chat/completions."""

    messages: Messages = Field(description='Such as {"role": "user", "content": "Hello"}.')
    max_completion_tokens: AtLeastOne = Field(None, description="Without it: what fits.")
    max_tokens: AtLeastOne = Field(None, description="Older name of max_completion_tokens.")
    logprobs: Switch = Field(None, description="Report the log-probability of every token.")
    top_logprobs: Top = Field(None, description="Likeliest tokens to report for every token.")
    tools: Tools = Field(None, description="Functions that the model may call.")
    tool_choice: str | dict[str, Any] | None = None
    modalities: Annotated[list[str], Field(max_length=8, fail_fast=True)] | None = None
    audio: Any = None
    functions: Any = None
    function_call: Any = None
    web_search_options: Any = None
    moderation: Any = None
    parallel_tool_calls: Switch = None
    prediction: Ignored = None
    reasoning_effort: Ignored = None
    verbosity: Ignored = None


class CompletionRequest(CommonFields):
    """A request to /v1/completions."""

    prompt: Prompts = Field(
        description="Text in which markers are control tokens, token ids, or several of these."
    )
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Without it: what fits. 0 with echo only scores."
    )
    echo: Switch = Field(None, description="Put the prompt before the completion.")
    logprobs: Top = Field(
        None, description="Report log-probabilities, and so many alternatives of each."
    )
    best_of: AtLeastOne = Field(None, description="Only equal to n.")
    suffix: Any = None


class TokenizeRequest(Body):
    """A request to /tokenize: llama.cpp's `content`, or lm-eval's and vLLM's `prompt`."""

    content: LongText = None
    prompt: LongText = None
    add_special: Switch = Field(None, description="Put BOS first where the model wants it.")
    add_special_tokens: Switch = Field(None, description="The same.")
    parse_special: Switch = Field(None, description="Read markers as control tokens; default true.")
    with_pieces: Switch = Field(None, description="Answer with the text of each token, too.")
    model: Name = None


class DetokenizeRequest(Body):
    """A request to /detokenize."""

    tokens: Annotated[list[int], Field(max_length=200_000, fail_fast=True)]
    model: Name = None


class TemplateRequest(Body):
    """A request to /apply-template."""

    messages: Messages
    tools: Tools = None
    model: Name = None
