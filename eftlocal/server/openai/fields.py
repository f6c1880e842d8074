"""The fields that chat completions and completions have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .body import Body

MAX_CHOICES = 256
"""Most completions that one request may ask for: n times its prompts."""

_MAX_STOP = 16
_MAX_STOP_LENGTH = 1000
_MAX_BIASES = 1024
_MAX_SEED = 2**64

# Bounds that GenerationOptions has are left to it; here are types, and bounds of lists and texts.
Number = float | None
Count = int | None
Switch = bool | None
Ignored = Annotated[Any, Field(description="Accepted, without a meaning here.")]
Name = Annotated[str | None, Field(max_length=1000)]
AtLeastOne = Annotated[int, Field(ge=1)] | None
Top = Annotated[int, Field(ge=0, le=20)] | None
_Bias = Annotated[float, Field(ge=-100, le=100)]
_Stop = Annotated[str, Field(min_length=1, max_length=_MAX_STOP_LENGTH)]
_Stops = Annotated[list[_Stop], Field(max_length=_MAX_STOP, fail_fast=True)]


class StreamOptions(Body):
    """What a stream reports besides its chunks."""

    include_usage: Switch = Field(None, description="A last chunk with the usage.")
    include_obfuscation: Ignored = None


class FusionFields(Body):
    """How the models are fused, and how it goes quicker; see `eftlocal chat --help`."""

    alpha: float | Literal["dynamic", "grid", "one-sided", "joint"] | None = Field(
        None, description="Multiplier of the delta, or how it is searched for every token."
    )
    alpha_low: Number = None
    alpha_high: Number = None
    alpha_every: Count = None
    weight: Annotated[dict[str, float], Field(max_length=256)] | None = Field(
        None, description="Expert name -> weight of its delta."
    )
    lambda_: Number = Field(
        None, alias="lambda", description="Weights (lambda, 1 - lambda) of two experts."
    )
    upscale_top_p: Number = None
    part: Literal["fused", "base", "tuned", "reference"] | None = Field(
        None, description="The model that speaks alone; fused is all of them together."
    )
    draft: int | Literal["auto", "off"] | None = Field(
        None, description="Tokens that one round may decide."
    )
    accept: Literal["coupled", "rejection"] | None = None
    alphas: Switch = Field(
        None, description="Report every token with its alpha, under the key eft of each choice."
    )
    trace: Switch = Field(
        None, description="Report the distributions of all models, too; slower, and much data."
    )


class SamplingFields(Body):
    """How tokens are drawn; what is not given is as the server was started with."""

    temperature: Number = Field(None, description="0 is greedy.")
    top_p: Number = None
    top_k: Count = None
    min_p: Number = None
    presence_penalty: Number = None
    frequency_penalty: Number = None
    repetition_penalty: Number = None
    logit_bias: Annotated[dict[str, _Bias], Field(max_length=_MAX_BIASES)] | None = Field(
        None, description="Token id -> number added to its logit."
    )
    seed: Annotated[int, Field(gt=-_MAX_SEED, lt=_MAX_SEED)] | None = Field(
        None, description="Without one, every request that samples draws its own."
    )
    stop: _Stop | _Stops | None = Field(None, description="Texts that end the completion.")


class ConstraintFields(Body):
    """What a completion must look like; one of them."""

    response_format: dict[str, Any] | None = Field(
        None, description="As OpenAI's: text, json_object, or json_schema."
    )
    json_schema: bool | dict[str, Any] | None = Field(
        None, description="A JSON schema, or true for any JSON object."
    )
    regex: str | None = None
    grammar: str | None = None


class CommonFields(SamplingFields, FusionFields, ConstraintFields):
    """All that both kinds of requests have."""

    model: Name = Field(None, description="A name of /v1/models; without one, the first.")
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = Field(
        None, description="Completions per prompt."
    )
    stream: Switch = Field(None, description="Send the answer in pieces as server-sent events.")
    stream_options: StreamOptions | None = None
    user: Ignored = None
    store: Ignored = None
    metadata: Ignored = None
    service_tier: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None

    @property
    def choices(self) -> int:
        """Completions per prompt."""
        return self.n or 1

    @property
    def has_usage_chunk(self) -> bool:
        """Whether a stream ends with a chunk that has the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def reports_tokens(self) -> bool:
        """Whether the answer has the tokens under the key `eft`."""
        return bool(self.alphas or self.trace)
