"""Experts by their names: how given files are called, and options -> one weight per expert."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from .errors import UsageError
from .options import GenerationOptions

File = TypeVar("File", str, Path)

NAME_PATTERN = r"[^\s=]+"
"""What an expert may be called, so that NAME=W has one meaning."""


def expert_names(tuned: Sequence[str | Path]) -> tuple[str, ...]:
    """Names of experts that are given as files of their tuned models.

    One expert is called "tuned". Several are called like their files without ".gguf", or like the
    repositories of hf:user/repository-GGUF:QUANT without "-GGUF", where these names differ and
    hold neither blanks nor "=", and else expert1, expert2, ...
    """
    if len(tuned) == 1:
        return ("tuned",)
    names = [_stem(str(file)) for file in tuned]
    plain = all(name and not any(c.isspace() or c == "=" for c in name) for name in names)
    if plain and len(set(names)) == len(names):
        return tuple(names)
    return tuple(f"expert{number}" for number in range(1, len(tuned) + 1))


def _stem(file: str) -> str:
    name = Path(file).name
    if file.startswith("hf:") and not name.endswith(".gguf"):
        return name.partition(":")[0].removesuffix("-GGUF")
    return Path(name).stem


def references_for(tuned: Sequence[File], reference: Sequence[File]) -> list[File]:
    """One reference per tuned file: as they are given, or the only one for all.

    Raises:
        UsageError: where there are neither as many references as tuned files nor one.
    """
    if len(reference) not in (1, len(tuned)):
        raise UsageError(
            f"{len(tuned)} tuned and {len(reference)} reference files do not go together; "
            "give one reference per tuned file, in the same order, or one for all"
        )
    return list(reference) * (len(tuned) if len(reference) == 1 else 1)


def resolve_weights(experts: Sequence[str], options: GenerationOptions) -> tuple[float, ...] | None:
    """The weight of each expert, as `weight` or `lambda` says; None where neither is given.

    lambda gives (lambda, 1 - lambda) to two experts (EFT, arXiv 2310.12962, section 4.3).

    Args:
        experts: their names.
        options: of one generation.

    Raises:
        UsageError: for a weight of no expert, or a lambda for other than two experts.
    """
    known = ", ".join(experts)
    if options.lambda_ is not None:
        if len(experts) != 2:
            raise UsageError(
                f"lambda = {options.lambda_} is not allowed; use it with two experts, "
                f"not {len(experts)} ({known}); weight takes any number of them"
            )
        return (options.lambda_, 1 - options.lambda_)
    if not options.weight:
        return None
    for name, weight in options.weight.items():
        if name not in experts:
            raise UsageError(f"weight = {name}={weight:g} is not allowed; the experts are: {known}")
    return tuple(float(options.weight.get(name, 0)) for name in experts)
