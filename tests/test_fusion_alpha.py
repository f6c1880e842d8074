"""Fused rows where weights are missing or wild, and where alpha is searched."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eftlocal.alpha import AlphaSettings, search_alpha
from eftlocal.errors import BackendError
from eftlocal.fusion import FusionSettings, fuse

from .reference_alpha import log_softmax
from .rows import base_is_reference, make_case, many, no_delta, peaked, related, seeds, zipf
from .test_fusion import Case, assert_close, draw, exact, exclude, multipliers


@many
@given(seeds)
def test_without_weights_all_experts_count_alike(seed: int) -> None:
    """A fixed alpha gives each of E experts 1/E."""
    case = draw(seed)
    experts, alpha = len(case.tuned), case.settings.alpha
    fused = fuse(*case[:3], FusionSettings(alpha))
    assert_close(
        fused.logprobs,
        exact(case._replace(settings=FusionSettings(alpha, (1 / experts,) * experts))),
    )
    np.testing.assert_allclose(
        fused.alpha, np.full((len(case.base), experts), float(alpha) / experts), rtol=1e-15
    )


@settings(many, max_examples=30)
@given(seeds, st.sampled_from(["dynamic", "one-sided", "grid", "joint"]), st.booleans())
def test_a_searched_alpha_is_applied(seed: int, mode: str, weighted: bool) -> None:
    """The fused row is the formula at the alphas that are reported, and those are the search's."""
    base, tuned, reference, setting = draw(seed)
    weights = setting.weights if weighted else None
    fused = fuse(base, tuned, reference, FusionSettings(mode, weights, 0.1, 1.7))
    found = search_alpha(base, tuned, reference, AlphaSettings(mode, 0.1, 1.7, weights))
    np.testing.assert_array_equal(fused.alpha, found.alpha)
    for i, alpha in enumerate(fused.alpha):
        row = Case(
            base[i : i + 1],
            tuned[:, i : i + 1],
            reference[:, i : i + 1],
            FusionSettings(1.0, tuple(alpha.tolist())),
        )
        assert_close(fused.logprobs[i : i + 1], exact(row))


@pytest.mark.parametrize("mode", ["dynamic", "one-sided", "grid", "joint"])
@pytest.mark.parametrize(("n_vocab", "experts"), [(24, 1), (24, 2), (5_000, 1), (5_000, 2)])
def test_out_holds_the_searched_result(mode: str, n_vocab: int, experts: int) -> None:
    """With `out` the same bits are written there; inputs stay; log_z and alpha fit the logits."""
    kinds = (related, zipf, base_is_reference, no_delta, peaked)
    case = make_case(kinds, 7, n_vocab, experts)
    before = [array.copy() for array in case]
    out = np.full(case.base.shape, np.nan, np.float32)
    setting = FusionSettings(mode)
    fused, plain = fuse(*case, setting, out=out), fuse(*case, setting)
    assert fused.logits is out
    np.testing.assert_array_equal(out, plain.logits)
    for array, copy in zip(case, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    for i, row in enumerate(case.exact()):
        wanted = log_softmax(row.base + fused.alpha[i] @ (row.tuned - row.reference))
        np.testing.assert_allclose(fused.logprobs[i], wanted, rtol=1e-6, atol=3e-5)


@pytest.mark.parametrize("mode", ["dynamic", "joint"])
def test_a_held_alpha_is_not_searched(mode: str) -> None:
    """What was found earlier is used as it is, weights being part of it."""
    case = make_case((related, zipf), 3, 24, experts=2)
    held = (0.3, -1.25)
    fused = fuse(*case, FusionSettings(mode, (0.5, 2.0)), held=held)
    np.testing.assert_array_equal(fused.alpha, [held, held])
    fixed = fuse(*case, FusionSettings(1.0, held))
    np.testing.assert_array_equal(fused.logits, fixed.logits)


@settings(many, max_examples=30)
@given(seeds, st.sampled_from(["dynamic", "grid", "joint"]), st.sampled_from([-1.0, 0.0, 1.0]))
def test_exclusions_with_a_searched_alpha(seed: int, mode: str, low: float) -> None:
    """-inf anywhere follows the rules of `fuse` at the alphas that were found."""
    case = exclude(draw(seed), seed, 0.1)
    base, tuned, reference, _ = case
    base[:, 0], tuned[..., 0], reference[..., 0] = 1.0, 2.0, 3.0
    fused = fuse(base, tuned, reference, FusionSettings(mode, None, low, low + 1.5))
    for i, alpha in enumerate(fused.alpha):
        setting = FusionSettings(1.0, tuple(alpha.tolist()))
        wanted = exact(Case(base[i : i + 1], tuned[:, i : i + 1], reference[:, i : i + 1], setting))
        logprobs = fused.logprobs[i : i + 1]
        np.testing.assert_array_equal(np.isneginf(logprobs), np.isneginf(wanted))
        assert_close(logprobs, wanted)


@many
@given(
    seeds,
    st.sampled_from([-1000.0, -3.0, 40.0, 1000.0]),
    st.lists(st.floats(-1000, 1000), min_size=3, max_size=3),
)
def test_any_alpha_and_weights_give_a_distribution(
    seed: int, alpha: float, weights: list[float]
) -> None:
    """Far beyond use, of either sign, summing to anything: finite, normalised, as the formula."""
    case = draw(seed)
    case = case._replace(settings=FusionSettings(alpha, tuple(weights[: len(case.tuned)])))
    logprobs = fuse(*case).logprobs
    assert np.isfinite(logprobs).all()
    np.testing.assert_allclose(
        np.exp(logprobs, dtype=np.float64).sum(axis=-1), 1, rtol=0, atol=1e-5
    )
    wanted = exact(case)
    likely = wanted > -5
    # Two float32 roundings of numbers as large as alpha * weight * delta remain.
    size = 1 + 24 * max(abs(m) for m in multipliers(case.settings, len(case.tuned)))
    assert (np.abs(logprobs[likely] - wanted[likely]) < 4e-7 * size).all()


def test_weights_of_nothing_are_the_base() -> None:
    """Where all weights are 0 there is no delta to search an alpha for."""
    base, tuned, reference, _ = draw(5)
    for mode in ("dynamic", "one-sided", "grid", "joint"):
        fused = fuse(base, tuned, reference, FusionSettings(mode, (0.0,) * len(tuned)))
        np.testing.assert_array_equal(fused.alpha, 0)
        assert_close(
            fused.logprobs,
            exact(Case(base, tuned, reference, FusionSettings(0.0, (1.0,) * len(tuned)))),
        )


@pytest.mark.parametrize("mode", ["dynamic", "one-sided", "grid", "joint"])
@pytest.mark.parametrize("place", ["base", "tuned", "reference"])
@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_what_is_no_number_is_an_error(mode: str, place: str, top_p: float) -> None:
    """One NaN in one row of any model is an error also where alpha is searched or P filtered."""
    case = draw(9)
    getattr(case, place)[..., -1, 1] = math.nan
    with pytest.raises(BackendError, match="not numbers"):
        fuse(*case[:3], FusionSettings(mode, upscale_top_p=top_p))
