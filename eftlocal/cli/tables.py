"""Types and help texts of the shared options, by the fields that they set."""

from __future__ import annotations

import click

from ..options import ALPHA_MODES, PARTS
from .types import (
    ExpertWeight,
    GrammarFile,
    ParamType,
    SchemaFile,
    StopText,
    TokenBias,
    WordOrCount,
    WordOrNumber,
)

ROLE_HELP = {
    "base": "The base model as a GGUF, instead of an entry; or hf:USER/REPO[:QUANT].",
    "tuned": "The tuned model as a GGUF, or a LoRA adapter; repeatable for several experts.",
    "reference": "What it was tuned from; one for all experts, or one for each.",
}
"""Role -> help of the option that names its file."""

_LAYERS = WordOrCount("auto", "all")
SWITCH = click.Choice(["auto", "on", "off"])

GENERATION: dict[str, tuple[ParamType, str]] = {
    "alpha": (
        WordOrNumber(*ALPHA_MODES),
        "Strength of the tuned behaviour, 0 being the base alone; or how it is searched for each "
        "token: dynamic, grid, one-sided, joint (all experts together).",
    ),
    "alpha_low": (click.FLOAT, "Lowest alpha that is searched."),
    "alpha_high": (click.FLOAT, "Highest alpha that is searched."),
    "alpha_every": (click.INT, "Search again after so many tokens; 0: for the first one only."),
    "weight": (ExpertWeight(), "Weight of an expert, others get 0; repeatable."),
    "lambda_": (click.FLOAT, "Weights of two experts: L and 1 - L."),
    "upscale_top_p": (
        click.FLOAT,
        "Let the base speak only on the tuned model's likeliest tokens with this probability.",
    ),
    "part": (
        click.Choice(PARTS),
        "Let one model speak alone while the others read along; of several experts the one that "
        "weighs most.",
    ),
    "draft": (
        WordOrCount("auto", "off"),
        "Most tokens decided per round (2 to 16), off, or auto: as many as pay, by the clock. "
        "Logits of real models depend a little on the size of batches, which follows the clock, "
        "too: exact reruns need off.",
    ),
    "accept": (
        click.Choice(["coupled", "rejection"]),
        "Which drafts are taken: coupled shares its noise with the drafter and equals sampling "
        "without one, rejection takes more drafts; both draw from the same distribution.",
    ),
    "temperature": (click.FLOAT, "0 always takes the likeliest token, 1 samples freely."),
    "top_p": (click.FLOAT, "Sample from the likeliest tokens with this total probability."),
    "top_k": (click.INT, "Sample from this many likeliest tokens; 0 is off."),
    "min_p": (click.FLOAT, "Drop tokens less likely than this times the likeliest."),
    "repetition_penalty": (click.FLOAT, "Above 1: makes tokens of the completion less likely."),
    "presence_penalty": (click.FLOAT, "Subtracted from logits of tokens that occurred."),
    "frequency_penalty": (click.FLOAT, "Subtracted once for every time that a token occurred."),
    "logit_bias": (TokenBias(), "Add BIAS to the logit of a token; repeatable."),
    "seed": (click.INT, "Same seed and settings, same text; see --temperature."),
    "max_tokens": (click.INT, "End after this many tokens; 0 is no limit."),
    "stop": (StopText(), "End before this text; repeatable."),
    "json_schema": (
        SchemaFile(),
        "Make the answer JSON by the schema in FILE, or by a schema given as JSON itself; true: "
        "any JSON object.",
    ),
    "regex": (click.STRING, "Make the whole answer match a regular expression."),
    "grammar": (GrammarFile(), "Make the answer match the grammar in FILE: Lark or GBNF."),
}
"""Field of GenerationOptions -> (type, help) of its option; `/set parameter` uses them too."""

RUNTIME: dict[str, tuple[ParamType, str]] = {
    "ctx": (click.INT, "Context length in tokens; 0 takes what the models were trained for."),
    "gpu_layers": (_LAYERS, "Layers that go to a GPU; auto is what fits there."),
    "base_gpu_layers": (_LAYERS, "The same for the base only."),
    "tuned_gpu_layers": (_LAYERS, "The same for tuned models only."),
    "reference_gpu_layers": (_LAYERS, "The same for references only."),
    "threads": (click.INT, "CPU threads; 0 takes the usable cores that other programs leave idle."),
    "batch": (click.INT, "Prompt tokens evaluated per call."),
    "flash_attention": (SWITCH, "Flash attention."),
    "cache_type": (click.STRING, "Type of the KV cache, such as f16 or q8_0."),
    "mmap": (SWITCH, "Map model files instead of reading them."),
    "mlock": (click.BOOL, "Keep weights in RAM."),
    "rpc": (click.STRING, "Put the base's layers on rpc-servers: HOST:PORT[,HOST:PORT]."),
}
"""Field of RuntimeOptions -> (type, help) of its option."""

SEVERAL = ("weight", "logit_bias", "stop")
"""Options that may be given several times."""
