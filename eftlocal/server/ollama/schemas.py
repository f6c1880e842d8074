"""The bodies of requests to Ollama's API; unknown names and wrong types are errors here, too."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ..openai.body import Body
from ..openai.fields import FusionFields, Ignored, Number, Switch, Top
from ..openai.schemas import Tools

Model = Annotated[str, Field(min_length=1, max_length=1000)]
KeepAlive = float | Annotated[str, Field(max_length=100)] | None
Think = bool | Literal["low", "medium", "high"] | None
_SEED = 2**63
_Stop = Annotated[str, Field(min_length=1, max_length=1000)]
_Messages = Annotated[list[dict[str, Any]], Field(max_length=10_000, fail_fast=True)]
_Stops = Annotated[list[_Stop], Field(max_length=16, fail_fast=True)]
_Whole = Annotated[int, Field(ge=-(2**53), le=2**53)] | None


class Options(FusionFields):
    """`options`: Ollama's, those of fusion, and what else a request to /v1 may set."""

    temperature: Number = None
    top_k: _Whole = None
    top_p: Number = None
    min_p: Number = None
    seed: Annotated[int, Field(ge=-_SEED, lt=2 * _SEED)] | None = Field(
        None, description="Below 0, or without one, every request draws its own."
    )
    num_predict: _Whole = Field(None, description="Most tokens; 0 or less is what fits.")
    stop: _Stop | _Stops | None = None
    repeat_penalty: Number = None
    repetition_penalty: Number = Field(None, description="The same as repeat_penalty.")
    presence_penalty: Number = None
    frequency_penalty: Number = None
    num_ctx: _Whole = Field(None, description="At most what the model was loaded with.")
    regex: str | None = None
    grammar: str | None = None
    mirostat: _Whole = Field(None, description="Only 0.")
    tfs_z: Number = Field(None, description="Only 1.")
    typical_p: Number = Field(None, description="Only 1.")
    mirostat_tau: Ignored = None
    mirostat_eta: Ignored = None
    repeat_last_n: Ignored = None
    penalize_newline: Ignored = None
    num_keep: Ignored = None
    num_batch: Ignored = None
    num_gpu: Ignored = None
    main_gpu: Ignored = None
    num_thread: Ignored = None
    numa: Ignored = None
    low_vram: Ignored = None
    f16_kv: Ignored = None
    logits_all: Ignored = None
    vocab_only: Ignored = None
    use_mmap: Ignored = None
    use_mlock: Ignored = None
    embedding_only: Ignored = None

    @property
    def reports_tokens(self) -> bool:
        """Whether the answer has the tokens under the key `eft`."""
        return bool(self.alphas or self.trace)


class _Common(Body):
    """All that both kinds of requests have."""

    model: Model
    stream: Switch = Field(None, description="Answer line by line; true where it is not given.")
    format: Literal["", "json"] | dict[str, Any] | None = Field(
        None, description='"json", or a JSON schema that the answer has to match.'
    )
    options: Options | None = None
    keep_alive: KeepAlive = Field(
        None, description='Seconds, or such as "5m"; 0 unloads when done, below 0 never.'
    )
    think: Think = Field(None, description="false leaves the thinking out of the answer.")
    logprobs: Switch = None
    top_logprobs: Top = None
    truncate: Ignored = None
    shift: Ignored = None

    @property
    def wanted(self) -> Options:
        """The options, given or not."""
        return self.options or Options.model_validate({})

    @property
    def is_streamed(self) -> bool:
        """Whether the answer comes line by line."""
        return self.stream is not False


class ChatBody(_Common):
    """A request to /api/chat."""

    messages: Annotated[list[dict[str, Any]], Field(max_length=10_000, fail_fast=True)] | None = (
        Field(None, description="Without any, the model is loaded, or with keep_alive 0 unloaded.")
    )
    tools: Tools = None


class GenerateBody(_Common):
    """A request to /api/generate."""

    prompt: str | None = Field(
        None, description="Without one, the model is loaded, or with keep_alive 0 unloaded."
    )
    system: str | None = None
    raw: Switch = Field(None, description="The prompt is a text to continue, without a template.")
    context: Annotated[list[int], Field(max_length=1_000_000, fail_fast=True)] | None = Field(
        None, description="The context of an earlier answer: the conversation goes on."
    )
    suffix: str | None = None
    template: str | None = None
    images: Annotated[list[Any], Field(max_length=100, fail_fast=True)] | None = None


class NameBody(Body):
    """A request that names a model."""

    model: Model | None = None
    name: Model | None = Field(None, description="Older name of model.")
    verbose: Ignored = None
    system: Ignored = None
    template: Ignored = None
    options: Ignored = None
