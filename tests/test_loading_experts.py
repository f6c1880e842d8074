"""Several experts, adapters as experts, shared files and down-scaling, from files and entries."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from llama_cpp import Llama

import eftlocal
from eftlocal.distributions import Array64
from eftlocal.errors import ModelFileError, PromptError, UsageError
from eftlocal.llama import LlamaContext

from .adapters import write_adapter, write_merged
from .conftest import LARGE, N_VOCAB, SMALL, Trio
from .gguf_models import CHAT_TEMPLATE, END, EOS, MARKERS, ModelShape, write_gguf

PROMPT = "The quick brown fox jumps over the lazy dog, and then"
NO_END = {END: -100.0, EOS: -100.0}
EXACT: dict[str, Any] = {"flash_attention": "off", "cache_type": "f32", "threads": 1}
MESSAGES = [{"role": "user", "content": "Hello you"}]


class Family(NamedTuple):
    """A base and small models of one family."""

    base: Path
    math: Path
    code: Path
    law: Path
    reference: Path
    adapter: Path


@pytest.fixture(scope="module")
def family(trio: Trio, tmp_path_factory: pytest.TempPathFactory) -> Family:
    """The trio's models, more tuned ones, and an adapter on the reference."""
    folder = tmp_path_factory.mktemp("family")
    return Family(
        trio.base,
        write_gguf(folder / "math.gguf", SMALL, seed=11, chat_template=CHAT_TEMPLATE),
        write_gguf(folder / "code.gguf", SMALL, seed=12, chat_template=CHAT_TEMPLATE),
        write_gguf(folder / "law.gguf", SMALL, seed=13, chat_template=CHAT_TEMPLATE),
        trio.reference,
        write_adapter(folder / "adapter.gguf", trio.reference),
    )


def rows_of(path: Path, tokens: Sequence[int]) -> Array64:
    """(T, V) logits in one batch, from llama-cpp-python's own `Llama`."""
    exact = {"type_k": 0, "type_v": 0, "n_threads": 1, "n_threads_batch": 1}
    llama = Llama(str(path), n_ctx=512, logits_all=True, verbose=False, **exact)
    llama.eval(list(tokens))
    rows: Array64 = np.array(llama.scores[: llama.n_tokens, :N_VOCAB], np.float64)
    llama.close()
    return rows


def expected_logprobs(
    family: Family, done: eftlocal.Completion, multipliers: Sequence[float]
) -> Array64:
    """(T,) log-probs of a completion's tokens: base + sum_i m_i (tuned_i - reference)."""
    tokens = [*done.prompt_tokens, *done.tokens]
    reference = rows_of(family.reference, tokens)
    fused = rows_of(family.base, tokens)
    for path, multiplier in zip((family.math, family.code, family.law), multipliers, strict=True):
        fused = fused + multiplier * (rows_of(path, tokens) - reference)
    fused = fused[len(done.prompt_tokens) - 1 : -1]
    fused -= np.logaddexp.reduce(fused, axis=-1, keepdims=True)
    picked: Array64 = fused[np.arange(len(done.tokens)), list(done.tokens)]
    return picked


THREE = ("math", "code", "law")
MIXTURES: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "default": ({}, (1 / 3, 1 / 3, 1 / 3)),
    "alpha": ({"alpha": 1.5}, (0.5, 0.5, 0.5)),
    "weights": ({"weight": {"math": 0.5, "law": -0.25}, "alpha": 0.8}, (0.4, 0.0, -0.2)),
    "one": ({"weight": {"code": 1}}, (0.0, 1.0, 0.0)),
}


@pytest.mark.parametrize("draft", ["off", 4])
@pytest.mark.parametrize(("options", "multipliers"), MIXTURES.values(), ids=MIXTURES)
def test_three_experts_are_mixed_as_weighted(
    family: Family, options: dict[str, Any], multipliers: tuple[float, ...], draft: object
) -> None:
    """Log-probs and alphas are those of the weighted deltas, recomputed in float64."""
    tuned = [family.math, family.code, family.law]
    with eftlocal.load(base=family.base, tuned=tuned, reference=family.reference, **EXACT) as model:
        assert model.experts == THREE
        done = model.complete(
            PROMPT, max_tokens=25, seed=3, logit_bias=NO_END, draft=draft, **options
        )
    assert np.allclose(done.alphas, [multipliers] * len(done.tokens))
    expected = expected_logprobs(family, done, multipliers)
    np.testing.assert_allclose(done.logprobs, expected, rtol=0, atol=2e-3)


def test_contexts_are_shared_and_files_loaded_once(family: Family, tmp_path: Path) -> None:
    """Experts over one reference share its context; a file plays several parts in one."""
    link = tmp_path / "link.gguf"
    os.symlink(family.reference, link)
    tuned = [family.math, family.code, family.math]
    references = [family.reference, link, family.code]
    with eftlocal.load(base=link, tuned=tuned, reference=references, **EXACT) as model:
        ensemble = model.engine.ensemble
        assert len(ensemble.contexts) == 3
        assert ensemble.roles.base == 0
        assert ensemble.roles.experts == ((1, 0), (2, 0), (1, 2))
        assert model.experts == ("expert1", "expert2", "expert3")
        assert set(model.files) == {"base"} | {
            f"expert{n} {role}" for n in (1, 2, 3) for role in ("tuned", "reference")
        }
        weights = {id(c.weights) for c in ensemble.contexts if isinstance(c, LlamaContext)}
        assert len(weights) == 3
        model.complete(PROMPT, max_tokens=3)


def test_lists_of_one_are_one(family: Family) -> None:
    """One expert has the plain names, however it is given."""
    with eftlocal.load(
        base=family.base, tuned=[str(family.math)], reference=[family.reference], **EXACT
    ) as model:
        assert model.experts == ("tuned",)
        assert model.files == {
            "base": str(family.base),
            "tuned": str(family.math),
            "reference": str(family.reference),
        }


def test_the_drafter_is_the_cheapest(family: Family, tmp_path: Path) -> None:
    """Up-scaling drafts with the first tuned model, down-scaling with the base."""
    files: dict[str, Any] = {"tuned": [family.math, family.code], "reference": family.reference}
    with eftlocal.load(base=family.base, **files, **EXACT) as up:
        assert up.engine.ensemble.roles.drafters[0] == up.engine.ensemble.roles.experts[0][0]
    large = [write_gguf(tmp_path / f"{n}.gguf", LARGE, seed=n) for n in (20, 21)]
    with eftlocal.load(base=family.reference, tuned=large[0], reference=large[1], **EXACT) as down:
        assert down.engine.ensemble.roles.drafters[0] == down.engine.ensemble.roles.base
        plain = down.complete(PROMPT, max_tokens=40, temperature=0, logit_bias=NO_END)
        drafted = down.complete(PROMPT, max_tokens=40, temperature=0, logit_bias=NO_END, draft=4)
        alone = down.complete(PROMPT, max_tokens=40, temperature=0, logit_bias=NO_END, alpha=0)
    assert drafted.tokens == plain.tokens != alone.tokens
    assert 0 < drafted.timings.accepted < drafted.timings.drafted


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("draft", ["off", 4])
def test_an_adapter_is_an_expert(
    family: Family, tmp_path: Path, scale: float, draft: str | int
) -> None:
    """The fused greedy text and its log-probs are those of the merged model."""
    merged = write_merged(tmp_path / "merged.gguf", family.reference, family.adapter, scale)
    file = tmp_path / "models.toml"
    file.write_text(
        f'[models.x]\nbase = {{ path = "{family.base}" }}\n'
        f'tuned = {{ lora = "{family.adapter}", scale = {scale} }}\n'
        f'reference = {{ path = "{family.reference}" }}\n'
    )
    options: dict[str, Any] = {
        "max_tokens": 40,
        "temperature": 0,
        "logit_bias": NO_END,
        "draft": draft,
    }
    with eftlocal.load("x", models=file, **EXACT) as model:
        assert len(model.engine.ensemble.contexts) == 3
        assert len({id(weights) for weights in model._parts.weights}) == 2
        found = model.complete(PROMPT, **options)
    with eftlocal.load(
        base=family.base, tuned=merged, reference=family.reference, **EXACT
    ) as model:
        expected = model.complete(PROMPT, **options)
        plain = model.complete(PROMPT, alpha=0, **options)
    assert found.tokens == expected.tokens != plain.tokens
    np.testing.assert_allclose(found.logprobs, expected.logprobs, rtol=0, atol=2e-3)


def test_a_file_says_itself_that_it_is_an_adapter(family: Family) -> None:
    """Given as a tuned file it is applied to its expert's reference, beside a whole model."""
    with eftlocal.load(
        base=family.base, tuned=[family.adapter, family.math], reference=family.reference, **EXACT
    ) as model:
        assert model.engine.ensemble.roles.experts == ((1, 2), (3, 2))
        assert model.experts == ("adapter", "math")
        assert model.files["adapter tuned"] == str(family.adapter)
        by_adapter = model.complete(PROMPT, weight={"adapter": 1}, max_tokens=20, temperature=0)
    with eftlocal.load(
        base=family.base, tuned=family.adapter, reference=family.reference, **EXACT
    ) as model:
        assert model.complete(PROMPT, max_tokens=20, temperature=0).tokens == by_adapter.tokens
        model.close()


def test_adapters_of_several_scales_share_weights(family: Family, tmp_path: Path) -> None:
    """The same adapter may be several experts, and a plain one may stand beside them."""
    file = tmp_path / "models.toml"
    reference = f'reference = {{ path = "{family.reference}" }}'
    experts = ", ".join(
        f'{{ name = "s{n}", tuned = {{ lora = "{family.adapter}", scale = {n} }}, {reference} }}'
        for n in (0, 1, 2)
    )
    file.write_text(
        f'[models.x]\nbase = {{ path = "{family.reference}" }}\nexperts = [{experts}]\n'
        "weight = { s2 = 0.5 }\n"
    )
    with eftlocal.load("x", models=file, temperature=0, max_tokens=20, **EXACT) as model:
        assert len(model._parts.weights) == 1
        assert len(model.engine.ensemble.contexts) == 4
        texts = [
            model.complete(PROMPT, weight=weight).text
            for weight in (None, {"s0": 1}, {"s1": 1}, {"s2": 1})
        ]
        assert model.complete(PROMPT, alpha=0).text == texts[1]
        assert len(set(texts)) > 2


def test_an_adapter_takes_the_template_of_its_reference(family: Family, tmp_path: Path) -> None:
    """An adapter has none; without one in the reference the error says so."""
    chatty = write_gguf(tmp_path / "chatty.gguf", SMALL, seed=3, chat_template=CHAT_TEMPLATE)
    adapter = write_adapter(tmp_path / "adapter.gguf", chatty)
    with eftlocal.load(base=family.base, tuned=adapter, reference=chatty, **EXACT) as model:
        assert model.chat(MESSAGES, max_tokens=3).prompt_tokens == tuple(
            model.tokenize("<|user|>Hello you<|end|><|assistant|>", special=True)
        )
    with (
        eftlocal.load(
            base=family.base, tuned=family.adapter, reference=family.reference, **EXACT
        ) as model,
        pytest.raises(PromptError, match=r"reference\.gguf has no chat template"),
    ):
        model.chat(MESSAGES)


def test_the_base_may_be_silent_about_markers(family: Family, tmp_path: Path) -> None:
    """Under "tuned-only", control and end tokens are the tuned model's business by default."""
    lines = (
        f'base = {{ path = "{family.base}" }}\ntuned = {{ path = "{family.math}" }}\n'
        f'reference = {{ path = "{family.reference}" }}\nprompt = "tuned-only"\n'
    )
    file = tmp_path / "models.toml"
    file.write_text(f'[models.x]\n{lines}[models.y]\n{lines}neutral = "none"\n')
    found = {}
    for name in ("x", "y"):
        with eftlocal.load(name, models=file, **EXACT) as model:
            done = model.complete(PROMPT, max_tokens=1, temperature=0, top_logprobs=20)
            ids = {model.tokenize(marker, special=True)[-1] for marker in MARKERS}
            bias = dict.fromkeys(ids | {EOS}, 1e6)
            found[name] = model.complete(PROMPT, max_tokens=1, temperature=0, logit_bias=bias)
            tokens = done.prompt_tokens
    token = found["x"].tokens[0]
    base, tuned, reference = (
        rows_of(path, tokens)[-1] for path in (family.base, family.math, family.reference)
    )
    base, tuned, reference = (row - np.logaddexp.reduce(row) for row in (base, tuned, reference))
    everyone = base + tuned - reference
    silenced = everyone.copy()
    control = [1, 2, *sorted(ids)]
    silenced[control] = tuned[control]
    assert found["x"].logprobs[0] == pytest.approx(
        silenced[token] - np.logaddexp.reduce(silenced), abs=2e-3
    )
    token = found["y"].tokens[0]
    assert found["y"].logprobs[0] == pytest.approx(
        everyone[token] - np.logaddexp.reduce(everyone), abs=2e-3
    )


def test_wrong_experts_are_one_line(family: Family, tmp_path: Path) -> None:
    """What does not fit is said before anything is loaded, in one line."""
    base, math, code, law, reference, adapter = family
    missing = tmp_path / "missing.gguf"
    other = write_gguf(tmp_path / "other.gguf", ModelShape(n_vocab=N_VOCAB, layers=1))
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"tuned": [math, code], "reference": [reference] * 3}, UsageError, "2 tuned and 3"),
        ({"tuned": [], "reference": reference}, UsageError, "tuned missing"),
        ({"tuned": math, "reference": reference, "lambda": 0.5}, UsageError, "two experts"),
        (
            {"tuned": [math, code, law], "reference": missing, "weight": {"maths": 1}},
            UsageError,
            "math, code, law",
        ),
        ({"tuned": math, "reference": adapter}, ModelFileError, r"adapter\.gguf: an adapter, not"),
        (
            {"tuned": adapter, "reference": other},
            ModelFileError,
            r"cannot be used on .*other\.gguf",
        ),
        ({"tuned": missing, "reference": reference}, ModelFileError, "no such file"),
    ]
    for arguments, error, message in wrong:
        with pytest.raises(error, match=rf"^[^\n]*{message}[^\n]*$"):
            eftlocal.load(base=base, **arguments)
    with pytest.raises(ModelFileError, match="only tuned can be one"):
        eftlocal.load(base=adapter, tuned=math, reference=reference)


def test_weights_are_checked_for_every_call(family: Family) -> None:
    """A wrong name is one line, and the model goes on."""
    with eftlocal.load(
        base=family.base, tuned=[family.math, family.code], reference=family.reference, **EXACT
    ) as model:
        with pytest.raises(UsageError, match="the experts are: math, code"):
            model.complete(PROMPT, weight={"maths": 1})
        by_share = model.complete(PROMPT, max_tokens=5, temperature=0, **{"lambda": 0.3})
        by_weight = model.complete(
            PROMPT, max_tokens=5, temperature=0, weight={"math": 0.3, "code": 0.7}
        )
    assert by_share.tokens == by_weight.tokens
    np.testing.assert_allclose(by_share.alphas, [[0.3, 0.7]] * 5)
