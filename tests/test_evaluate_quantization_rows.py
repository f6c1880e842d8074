"""How far quantized roles move rows: distances, models off their grid, intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eftlocal import load
from eftlocal.context import Block
from eftlocal.evaluate.quantization.claims import above_one, below_one, claims
from eftlocal.evaluate.quantization.comparing import Apart, compare
from eftlocal.evaluate.quantization.found import Found, crossed, nested
from eftlocal.evaluate.quantization.subject import PARTS, Folder
from eftlocal.evaluate.quantization.tables import effects
from eftlocal.evaluate.statistics import Bootstrap
from eftlocal.evaluate.systems import FAMILY
from eftlocal.llama.quantizing import quantize
from eftlocal.registry import ROLES
from eftlocal.tables import Estimate

EXACT: dict[str, Any] = {"threads": 1, "flash_attention": "off", "cache_type": "f32"}


def random_rows(seed: int, spread: float = 3.0) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Logits (6, 50) of three roles."""
    rng = np.random.default_rng(seed)
    return {role: (spread * rng.standard_normal((6, 50))).astype(np.float32) for role in ROLES}


def kl64(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """KL of softmaxes of logits, term by term in float64."""

    def softmax(row: Any) -> Any:
        power = np.exp(row - row.max())
        return power / power.sum()

    pairs = zip(one.astype(np.float64), other.astype(np.float64), strict=True)
    return np.array(
        [
            sum(p * np.log(p / q) for p, q in zip(softmax(a), softmax(b), strict=True))
            for a, b in pairs
        ]
    )


def test_distances_of_rows_agree_with_sums_in_float64() -> None:
    """KL, total variation and changes of fused rows, for each part."""
    given, quantized = random_rows(0), random_rows(1)
    found = compare(given, quantized, 0.7, ())
    assert list(found) == list(PARTS)
    for part, apart in found.items():
        mixed = {**given, **{role: quantized[role] for role in PARTS[part]}}
        f, g = (
            rows["base"] + np.float32(0.7) * (rows["tuned"] - rows["reference"])
            for rows in (given, mixed)
        )
        np.testing.assert_allclose(apart.kl, kl64(f, g), rtol=1e-5)
        p, q = (np.exp(x - x.max(axis=1, keepdims=True)) for x in (f, g))
        p, q = (x / x.sum(axis=1, keepdims=True) for x in (p, q))
        np.testing.assert_allclose(apart.variation, abs(p - q).sum(axis=1) / 2, rtol=1e-4)
        assert apart.changed.tolist() == (p.argmax(axis=1) != q.argmax(axis=1)).tolist()


def test_excluded_tokens_do_not_make_kl_undefined() -> None:
    """What neither distribution allows counts nothing; what only the other excludes is infinite."""
    p = np.log(
        np.array([[0.5, 0.5, 0.0]]), where=[[True, True, False]], out=np.full((1, 3), -np.inf)
    )
    q = np.log(
        np.array([[0.25, 0.75, 0.0]]), where=[[True, True, False]], out=np.full((1, 3), -np.inf)
    )
    expected = 0.5 * np.log(2) + 0.5 * np.log(0.5 / 0.75)
    assert Apart.of(p, q).kl == pytest.approx([expected])
    assert (
        Apart.of(
            q, np.log([[0.5, 0.0, 0.5]], where=[[True, False, True]], out=np.full((1, 3), -np.inf))
        ).kl[0]
        == np.inf
    )


def test_roles_that_do_not_matter_change_nothing() -> None:
    """With alpha 0 tuned and reference have a KL of exactly 0; the base has not."""
    found = compare(random_rows(0), random_rows(1), 0.0, ())
    for part in ("tuned", "reference", "tuned and reference"):
        assert found[part].kl.tolist() == [0.0] * 6
        assert not found[part].changed.any() and not found[part].variation.any()
    assert (found["base"].kl > 0).all()
    assert found["all three"].kl.tolist() == found["base"].kl.tolist()


def test_equal_errors_of_tuned_and_reference_cancel() -> None:
    """The same error in both leaves their delta as it is."""
    given = random_rows(0)
    error = random_rows(2)["base"]
    off = {role: given[role] + error for role in ("tuned", "reference")}
    found = compare(given, off, 1.0, ())
    assert set(found) == {"tuned", "reference", "tuned and reference"}
    assert found["tuned and reference"].kl.max() < 1e-8 < found["tuned"].kl.min()


def test_searched_alpha_and_neutral_ids_are_those_of_decoding() -> None:
    """Dynamic alpha is searched anew for quantized rows; neutral ids are fused as ever."""
    given, quantized = random_rows(0), random_rows(1)
    fixed, searched = (compare(given, quantized, alpha, ()) for alpha in (1.0, "dynamic"))
    assert not np.allclose(fixed["tuned"].kl, searched["tuned"].kl)
    everything = list(range(50))
    neutral = compare(given, quantized, 1.0, everything)
    np.testing.assert_allclose(
        neutral["tuned"].kl, kl64(given["tuned"], quantized["tuned"]), rtol=1e-4
    )
    assert neutral["base"].kl.max() < 1e-8


@pytest.mark.parametrize("name", ["large", "small", "small-chat"])
def test_models_off_their_grid_compute_the_same(tmp_path: Path, name: str) -> None:
    """Logits agree to 1e-4 with those of the unpacked file, and Q8_0 is no longer free."""
    source = FAMILY / f"{name}.gguf"
    quantize(source, tmp_path / "unpacked.gguf", "F32")
    made = [Folder(tmp_path).off_grid(source, seed) for seed in (0, 1)]
    assert made[0].read_bytes() != made[1].read_bytes()

    def rows(path: Path) -> np.ndarray[Any, Any]:
        with load(base=path, tuned=path, reference=path, **EXACT) as model:
            ids = model.tokenize("<|user|>What is the capital of Peru?<|end|>", special=True)
            (context,) = model.engine.ensemble.contexts
            return context.decode([Block(0, ids, len(ids))]).copy()

    unpacked = rows(tmp_path / "unpacked.gguf")
    quantize(made[0], tmp_path / "q8.gguf", "Q8_0", pure=True)
    assert np.abs(rows(made[0]) - unpacked).max() < 1e-4
    assert np.abs(rows(made[1]) - unpacked).max() < 1e-4
    assert np.abs(rows(tmp_path / "q8.gguf") - rows(source)).max() > 1e-2
    assert [file.name for file in tmp_path.glob(".*")] == []


def test_intervals_know_that_models_differ() -> None:
    """Where all texts agree but models do not, the interval is as wide as the models differ."""
    texts = Bootstrap.over([str(i) for i in range(20)], resamples=500)
    draws = crossed(texts, 4, seed=0)
    assert draws.counts.shape == (500, 80)
    by_model = np.repeat([1.0, 2.0, 3.0, 4.0], 20)
    found = draws.mean(by_model)
    assert found.value == 2.5 and found.low < 1.8 and found.high > 3.2
    by_text = np.tile(np.arange(20.0), 4)
    assert draws.mean(by_text).low == pytest.approx(texts.mean(np.arange(20.0)).low)


def test_intervals_of_replies_know_it_too() -> None:
    """Every question went to one model: what only models decide has a wide interval."""
    questions = Bootstrap.over([str(i) for i in range(80)], resamples=500)
    of = [i // 20 for i in range(80)]
    by_model = np.array(of, np.float64)
    wide, narrow = nested(questions, of, seed=0).mean(by_model), questions.mean(by_model)
    assert wide.value == narrow.value == 1.5
    assert wide.low < 0.8 < narrow.low and narrow.high < 2.2 < wide.high


def test_quantiles_of_tokens() -> None:
    """The value is NumPy's; the interval holds it."""
    kl = [np.random.default_rng(i).exponential(size=50) for i in range(30)]
    draws = Bootstrap.over([str(i) for i in range(30)], resamples=200)
    found = Found((), {}, {}, {}, np.full(30, 50.0), draws)
    flat = np.concatenate(kl)
    for share in (0.5, 0.99):
        estimate = found.quantile(kl, share)
        assert estimate.value == np.quantile(flat, share, method="inverted_cdf")
        assert estimate.low < estimate.value < estimate.high


def test_one_counterexample_refutes_a_claim_on_all_types() -> None:
    """Ratios below 1, above 1, and undecided ones."""
    below, above, open_ = Estimate(0.5, 0.4, 0.6), Estimate(2, 1.5, 3), Estimate(1, 0.9, 1.1)
    assert below_one({"a": below, "b": below}) is True
    assert below_one({"a": below, "b": open_}) is None
    assert below_one({"a": below, "b": above}) is False
    assert above_one({"a": above}) is True
    assert above_one({"a": above, "b": open_}) is None
    assert above_one({"a": above, "b": below}) is False


def test_types_that_save_nothing_are_left_out() -> None:
    """llama.cpp fell back to a type with as many bits: no claim on that type, and a note."""
    rng = np.random.default_rng(0)
    whole = {"n_bytes": 100, "types": {"Q8_0": 94}}
    packed = {"Q6_K": whole, "Q5_0": {"n_bytes": 60, "types": {"Q5_0": 94}}}

    def record(name: str) -> dict[str, Any]:
        def kl() -> dict[str, Any]:
            values = rng.uniform(0.9, 1.0, 5) * (name == "Q5_0")
            return {"kl": values.tolist(), "variation": 0.1, "changed": 0}

        apart = {alpha: {part: kl() for part in PARTS} for alpha in ("1", "dynamic")}
        given, made = (dict.fromkeys(ROLES, facts) for facts in (whole, packed[name]))
        return {"given": given, "packed": made, "apart": apart}

    records = [record(name) for name in packed for _ in range(20)]
    draws = Bootstrap.over([str(i) for i in range(20)], 0, 200)
    found = Found.of(dict.fromkeys(packed, ROLES), [records], draws)
    assert found.unsaved() == {"Q6_K": list(ROLES)}
    said = claims(found)
    assert len(said) == 5
    assert not any("Q6_K" in claim.found for claim in said)
    assert said[0].holds is True
    assert "Nothing is saved by Q6_K (base, tuned, reference)" in effects(found).notes[-1]
