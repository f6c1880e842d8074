"""Names of files in repositories: quantizations, shards, and none that leads out of the cache."""

from __future__ import annotations

import pytest

from eftlocal.errors import HubError
from eftlocal.hub.names import check_name, choose, describe, models_in, shards_of

NAMES = [
    "README.md",
    "Qwen2.5-7B.IQ3_M.gguf",
    "Qwen2.5-7B.Q4_K_M.gguf",
    "Qwen2.5-7B.Q4_K_S.gguf",
    "Qwen2.5-7B.Q8_0.gguf",
    "mmproj-Qwen2.5-7B-Q8_0.gguf",
    "qwen2.5-7b.imatrix.gguf",
]


@pytest.mark.parametrize(
    ("quant", "found"),
    [
        ("Q4_K_M", "Qwen2.5-7B.Q4_K_M.gguf"),
        ("q4_k_m", "Qwen2.5-7B.Q4_K_M.gguf"),
        ("q8_0", "Qwen2.5-7B.Q8_0.gguf"),
        ("IQ3_M", "Qwen2.5-7B.IQ3_M.gguf"),
        ("Q3_M", None),
        ("Q4_K", None),
        ("Q8", None),
        ("7B", "Qwen2.5-7B.Q8_0.gguf"),
    ],
)
def test_a_quantization_is_chosen_by_name(quant: str, found: str | None) -> None:
    """Case does not matter, parts of names do; projectors are no models."""
    assert choose(NAMES, quant) == found


def test_other_ways_to_name_files() -> None:
    """Hyphens, folders, lower case, several models with one quantization."""
    assert choose(["a-b-q4_k_m.gguf"], "Q4_K_M") == "a-b-q4_k_m.gguf"
    assert choose(["x_Q8_0.gguf"], "Q8_0") == "x_Q8_0.gguf"
    shards = [f"Q8_0/big-Q8_0-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert choose(shards, "q8_0") == shards[0]
    assert choose(["UD-Q4_K_M-x.gguf", "Q4_K_M-x.gguf"], "Q4_K_M") == "Q4_K_M-x.gguf"
    assert choose(["a.Q4_K_M.safetensors"], "Q4_K_M") is None


def test_shards() -> None:
    """A shard stands for its whole set; other names for themselves."""
    wanted = [f"d/m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert shards_of("d/m-00002-of-00003.gguf") == wanted
    assert shards_of("m-1-of-3.gguf") == ["m-1-of-3.gguf"]
    assert models_in([*wanted, "other.gguf"]) == [wanted[0], "other.gguf"]


def test_what_a_repository_has() -> None:
    """Quantizations where every file has its own, else names, and not endless ones."""
    assert describe(NAMES) == "IQ3_M, Q4_K_M, Q4_K_S, Q8_0"
    assert describe(["one.gguf", "two.gguf"]) == "one.gguf, two.gguf"
    assert describe(["README.md"]) == "no GGUF files"
    assert describe([f"{i:02}.gguf" for i in range(12)]).endswith("07.gguf and 4 more")


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../../x", "a//b", "C:x", "a\\b", "", "a/./b", "x\0y", "x\ny"]
)
def test_names_cannot_lead_out_of_the_cache(name: str) -> None:
    """What a hub, or an entry, calls a file becomes a path."""
    with pytest.raises(HubError, match="can be stored"):
        check_name(name)
    assert check_name("Q4/m.gguf") == "Q4/m.gguf"
