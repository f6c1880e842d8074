"""What `import eftlocal` offers, and what it costs."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import eftlocal
from eftlocal import errors

NAMES = [
    "BackendError",
    "Completion",
    "ConstraintError",
    "ContextFull",
    "EftlocalError",
    "FusedModel",
    "GenerationOptions",
    "HubError",
    "ModelFileError",
    "NotDownloaded",
    "PromptError",
    "RegistryError",
    "RuntimeOptions",
    "Stream",
    "Timings",
    "TokenEvent",
    "UsageError",
    "VocabularyMismatch",
    "__version__",
    "load",
]


def fields(name: str) -> list[str]:
    """The names of a dataclass's fields."""
    return list(getattr(eftlocal, name).__dataclass_fields__)


def test_the_public_names_are_pinned() -> None:
    """Adding or removing a public name is a decision, made here too."""
    assert sorted(eftlocal.__all__) == NAMES
    assert dir(eftlocal) == NAMES
    for name in NAMES:
        assert getattr(eftlocal, name) is not None


def test_every_error_is_public() -> None:
    """Users can catch each error of the tree by its name."""
    tree = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert tree <= set(eftlocal.__all__)
    assert all(issubclass(getattr(eftlocal, name), eftlocal.EftlocalError) for name in tree)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy exports do not invent names."""
    with pytest.raises(AttributeError, match="'eftlocal' has no attribute 'lode'"):
        getattr(eftlocal, "lode")  # noqa: B009


@pytest.mark.parametrize("module", sorted({*eftlocal._HOME.values()}))
def test_no_module_takes_the_place_of_a_public_name(module: str) -> None:
    """`eftlocal.load` is the function, also where a module was imported on its own before."""
    code = f"import eftlocal.{module}, eftlocal; assert callable(eftlocal.load), eftlocal.load"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_signature_of_load_is_pinned() -> None:
    """Callers rely on these parameters."""
    parameters = inspect.signature(eftlocal.load).parameters
    assert list(parameters) == [
        "entry", "base", "tuned", "reference", "models", "progress", "verbose", "options",
    ]  # fmt: skip
    assert all(
        parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in list(parameters)[1:-1]
    )


def test_the_fields_of_results_are_pinned() -> None:
    """Callers rely on these attributes."""
    assert fields("TokenEvent") == [
        "token", "logprob", "alpha", "from_draft", "finish_reason", "top", "trace", "text",
    ]  # fmt: skip
    assert fields("Completion") == [
        "text", "tokens", "logprobs", "alphas", "traces", "prompt_tokens", "finish_reason",
        "context_full", "timings", "thinking_opened", "prompt_scores", "text_was_cut", "tools",
    ]  # fmt: skip
    assert fields("Timings") == [
        "prompt_tokens", "cached_tokens", "prompt_seconds", "generated_tokens",
        "generation_seconds", "first_token_seconds", "rounds", "drafted", "accepted",
    ]  # fmt: skip


def test_a_model_has_the_promised_methods() -> None:
    """FusedModel and Stream have what the README shows."""
    for name in ("chat", "complete", "stream_chat", "stream_complete", "tokenize", "token_text"):
        assert inspect.isfunction(getattr(eftlocal.FusedModel, name))
    for name in ("__enter__", "__exit__", "close"):
        assert hasattr(eftlocal.FusedModel, name)
    for name in ("__iter__", "__next__", "cancel", "completion"):
        assert hasattr(eftlocal.Stream, name)


@pytest.mark.parametrize("module", ["eftlocal", "eftlocal.cli.main", "eftlocal.registry"])
def test_importing_is_light(module: str) -> None:
    """Heavy packages are imported when they are needed, so that `eftlocal --help` is quick."""
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"huggingface_hub", "jinja2", "llama_cpp", "numpy", "prompt_toolkit", "rich"}
    assert not heavy & set(json.loads(run.stdout))


def test_the_types_are_delivered() -> None:
    """The package is marked as typed, and its version is a version."""
    assert (Path(eftlocal.__file__).parent / "py.typed").exists()
    assert re.fullmatch(r"\d+\.\d+\.\d+", eftlocal.__version__)
    assert importlib.import_module("eftlocal").__doc__
