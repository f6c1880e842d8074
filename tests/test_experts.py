"""Experts by their names: how files are called, and what weights options give them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eftlocal.errors import UsageError
from eftlocal.experts import NAME_PATTERN, expert_names, references_for, resolve_weights
from eftlocal.options import GenerationOptions

THREE = ("math", "code", "law")
WEIGHTS = st.floats(-1000, 1000)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["any.gguf"], ("tuned",)),
        (["a/math.gguf", "b/code.gguf"], ("math", "code")),
        (["a/chat.gguf", "b/chat.gguf"], ("expert1", "expert2")),
        (["my math.gguf", "code.gguf"], ("expert1", "expert2")),
        (["x=1.gguf", "code.gguf", "law.gguf"], ("expert1", "expert2", "expert3")),
    ],
    ids=["one", "stems", "alike", "blank", "equals"],
)
def test_names_of_files(files: list[str], names: tuple[str, ...]) -> None:
    """Stems where they differ and can stand in NAME=W, else numbers."""
    assert expert_names(files) == expert_names([Path(file) for file in files]) == names


@given(st.lists(st.text(st.characters(exclude_characters="/\0")), min_size=1, max_size=5))
def test_names_always_differ_and_can_be_weighed(stems: list[str]) -> None:
    """Whatever the files are called, there is one usable name for each."""
    names = expert_names([f"{stem}.gguf" for stem in stems])
    assert len(set(names)) == len(names) == len(stems)
    assert all(re.fullmatch(NAME_PATTERN, name) for name in names)


def test_references_pair_up() -> None:
    """One reference is for all; otherwise there has to be one per tuned file."""
    assert references_for(["a", "b"], ["r"]) == ["r", "r"]
    assert references_for(["a", "b"], ["r", "s"]) == ["r", "s"]
    assert references_for(["a"], ["r"]) == ["r"]
    for tuned, reference in ((["a"], ["r", "s"]), (["a", "b", "c"], ["r", "s"])):
        with pytest.raises(UsageError, match=rf"^{len(tuned)} tuned and 2 reference files [^\n]+$"):
            references_for(tuned, reference)


@given(st.dictionaries(st.sampled_from(THREE), WEIGHTS, min_size=1))
def test_weights_stand_in_the_order_of_the_experts(weight: dict[str, float]) -> None:
    """Each expert gets its own weight, those that are not named get 0."""
    options = GenerationOptions(weight=weight)
    found = resolve_weights(THREE, options)
    assert found is not None
    named = {name: number for name, number in zip(THREE, found, strict=True) if name in weight}
    assert named == weight
    assert sorted(filter(None, found)) == sorted(filter(None, weight.values()))


@given(WEIGHTS)
def test_lambda_is_the_shorthand_for_two(share: float) -> None:
    """The second expert gets what is left of 1."""
    found = resolve_weights(("a", "b"), GenerationOptions(lambda_=share))
    assert found == (share, 1 - share)


def test_without_both_there_are_no_weights() -> None:
    """The fusion then has a rule of its own."""
    assert resolve_weights(THREE, GenerationOptions(alpha="grid")) is None


@pytest.mark.parametrize(
    ("experts", "options", "message"),
    [
        (
            THREE,
            {"weight": {"maths": 1}},
            "maths=1 is not allowed; the experts are: math, code, law",
        ),
        (THREE, {"lambda_": 0.3}, "lambda = 0.3 is not allowed; use it with two experts, not 3"),
        (("tuned",), {"lambda_": 0.3}, "two experts, not 1 (tuned); weight takes any number"),
    ],
    ids=["unknown", "three", "one"],
)
def test_what_does_not_fit_is_one_line(
    experts: tuple[str, ...], options: dict[str, object], message: str
) -> None:
    """The line says which experts there are."""
    with pytest.raises(UsageError) as caught:
        resolve_weights(experts, GenerationOptions().updated(options))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
