"""Plans for made-up devices: nothing beyond what is free, small models first, more with more."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eftlocal.gguf import read_header
from eftlocal.memory import Device, Need, Plan, need, need_of_files, plan
from eftlocal.options import RuntimeOptions
from eftlocal.placement import gpu_layers

from .adapters import write_adapter
from .conftest import N_VOCAB, Trio, write_trio
from .gguf_models import ModelShape

MIB = 1 << 20
SMALL_FIRST = ("tuned", "reference", "base")


def devices(gpu: int, ram: int, kind: str = "gpu") -> list[Device]:
    """RAM and one GPU with so many bytes free."""
    return [Device("RAM", "cpu", ram, ram), Device("GPU0", kind, gpu, gpu)]


@pytest.fixture(scope="module")
def needed(trio: Trio) -> Need:
    """What the trio needs with 512 tokens."""
    return need_of_files(trio._asdict(), RuntimeOptions(ctx=512))


def scaled(needed: Need, share: float) -> int:
    """Free bytes of a GPU of which, less its margin, a share of the need can be planned."""
    total = sum(model.on_gpu(model.n_layers) for model in needed.models)
    return int(share * total) + 256 * MIB


@given(gpu=st.floats(0, 1.5), ram=st.floats(0, 2), kind=st.sampled_from(["gpu", "igpu"]))
def test_never_more_than_is_free(needed: Need, gpu: float, ram: float, kind: str) -> None:
    """On the GPU in any plan, and altogether where it says that it fits."""
    found = devices(scaled(needed, gpu), int(ram * needed.total), kind)
    planned = plan(needed, found)
    assert planned.gpu_bytes <= found[1].free
    if planned.fits:
        shared = planned.gpu_bytes if kind == "igpu" else 0
        assert planned.ram_bytes + shared <= found[0].free
        assert (planned.ctx, planned.advice) == (needed.ctx, "")
    else:
        assert planned.ctx < needed.ctx
        assert planned.advice and "\n" not in planned.advice
    if planned.ctx:
        assert plan(needed.changed(planned.ctx), found).fits


def with_thin_base(needed: Need) -> Need:
    """The same, but the base has many layers that are smaller than any of the small models'."""
    base = needed.models[0]
    n_layers = 200
    thin = replace(
        base.sizes,
        n_layers=n_layers,
        layers=(base.sizes.weights // n_layers,) * n_layers,
        cached_keys=(1,) * n_layers,
        cached_values=(1,) * n_layers,
        state=(0,) * n_layers,
        output=0,
        n_embd=1,
        n_ff=1,
        n_vocab=1,
        largest=1,
    )
    return replace(needed, models=(replace(base, sizes=thin), *needed.models[1:]))


@given(gpu=st.floats(0, 1.2), thin=st.booleans())
def test_small_models_first(needed: Need, gpu: float, thin: bool) -> None:
    """A model has layers on the GPU only where all smaller ones lie there whole."""
    needed = with_thin_base(needed) if thin else needed
    planned = plan(needed, devices(scaled(needed, gpu), 10 * needed.total))
    whole = {model.role: model.n_layers for model in needed.models}
    for smaller, larger in pairwise(SMALL_FIRST):
        full = planned.gpu_layers[smaller] == whole[smaller]
        assert full or planned.gpu_layers[larger] == 0


@given(low=st.floats(0, 1.5), more=st.floats(0, 1), ram=st.floats(0, 2))
def test_more_memory_never_gives_less(needed: Need, low: float, more: float, ram: float) -> None:
    """Neither fewer layers of any model on the GPU, nor a shorter context."""
    n_ram = int(ram * needed.total)
    one = plan(needed, devices(scaled(needed, low), n_ram))
    two = plan(needed, devices(scaled(needed, low + more), n_ram))
    three = plan(needed, devices(scaled(needed, low), n_ram + int(more * needed.total)))
    assert all(two.gpu_layers[role] >= n for role, n in one.gpu_layers.items())
    assert one.gpu_layers == three.gpu_layers
    assert three.ctx >= one.ctx
    assert three.fits >= one.fits


def test_everything_lies_on_a_large_gpu(needed: Need) -> None:
    """All layers and outputs; embeddings, rows and inputs stay in RAM."""
    planned = plan(needed, devices(scaled(needed, 1.2), needed.total))
    assert planned.gpu_layers == {model.role: model.n_layers for model in needed.models}
    assert 0 < planned.ram_bytes < needed.total
    assert planned.gpu_bytes + planned.ram_bytes >= sum(needed.parts().values()) * 0.9


def test_two_gpus_count_together_and_integrated_ones_only_alone(needed: Need) -> None:
    """As llama.cpp uses them."""
    half = scaled(needed, 0.6)
    ram = Device("RAM", "cpu", 10 * needed.total, 10 * needed.total)
    cards = [Device(f"CUDA{i}", "gpu", half, half) for i in (0, 1)]
    inside = Device("iGPU", "igpu", half, half)
    whole = {model.role: model.n_layers for model in needed.models}
    assert plan(needed, [ram, *cards]).gpu_layers == whole
    assert plan(needed, [ram, cards[0]]).gpu_layers != whole
    assert plan(needed, [ram, cards[0], inside]) == plan(needed, [ram, cards[0]])
    assert plan(needed, [ram]).gpu_layers == dict.fromkeys(whole, 0)


def test_fixed_layers_are_kept(needed: Need) -> None:
    """Also where they do not fit: then the advice says so."""
    roomy = devices(scaled(needed, 1.2), needed.total)
    assert plan(needed, roomy, {"tuned": 1}).gpu_layers["tuned"] == 1
    tight = plan(needed, devices(1, 10 * needed.total), {"base": 99})
    assert tight.gpu_layers["base"] == 5
    assert not tight.fits
    assert "--gpu-layers auto" in tight.advice


def advice(needed: Need, share: float) -> Plan:
    """A plan for a machine without a GPU that has a share of the need."""
    ram = int(share * needed.total)
    return plan(needed, [Device("RAM", "cpu", ram, ram)])


def test_advice_is_the_mildest_change(trio: Trio, tmp_path: Path) -> None:
    """A shorter context, then smaller caches, then a smaller base."""
    small = ModelShape(n_vocab=N_VOCAB, heads=2, kv_heads=1)
    wide = write_trio(tmp_path, small=small)._asdict()
    needed = need_of_files(wide, RuntimeOptions(ctx=32768))
    shorter = advice(needed, 0.5)
    assert not shorter.fits
    assert shorter.advice.startswith(f"use --ctx {shorter.ctx}: ")
    assert advice(needed.changed(shorter.ctx), 1).fits
    least = needed.changed(512).total / needed.total
    quantised = needed.changed(512, cache_type="q8_0").total / needed.total
    assert advice(needed, (least + quantised) / 2).advice == "use --cache-type q8_0 --ctx 512"
    narrow = need_of_files(trio._asdict(), RuntimeOptions(ctx=32768))
    share = (narrow.changed(512).total - 1) / narrow.total
    assert "q8_0" not in advice(narrow, share).advice  # its blocks are longer than their heads
    without = (needed.changed(512).total - needed.models[0].sizes.weights // 2) / needed.total
    assert "a smaller quantization of the base" in advice(needed, without).advice
    assert "use smaller models" in advice(needed, 0).advice


def test_files_and_contexts_are_counted_once(trio: Trio, tmp_path: Path) -> None:
    """A file that plays two roles in one style has one context; an adapter one of its own."""
    files = trio._asdict()
    one = need_of_files(files | {"reference": trio.tuned})
    two = need_of_files(files | {"reference": trio.tuned}, None, {"reference": "plain"})
    assert [model.role for model in one.models] == ["base", "tuned"]
    assert [model.n_contexts for model in one.models] == [1, 1]
    assert [model.n_contexts for model in two.models] == [1, 2]
    assert two.parts()["weights"] == one.parts()["weights"]
    assert two.models[1].caches == 2 * one.models[1].caches
    adapter = write_adapter(tmp_path / "lora.gguf", trio.reference)
    three = need_of_files(files | {"tuned": adapter})
    assert [(m.role, m.n_contexts) for m in three.models] == [("base", 1), ("reference", 2)]
    tensors = sum(tensor.n_bytes for tensor in read_header(adapter).tensors)
    assert three.models[1].adapters == tensors > 0


def test_the_default_context_is_that_of_load(trio: Trio) -> None:
    """What all models were trained for, at most 8,192."""
    headers = {role: read_header(path) for role, path in trio._asdict().items()}
    found = need(headers)
    assert (found.ctx, found.n_ctx_train) == (512, 512)


def test_gpu_layers_follow_the_plan(trio: Trio) -> None:
    """`auto` is the plan's number where there is a GPU; what the user says stays."""
    files = trio._asdict()
    weights = {path: role for role, path in files.items()}
    found = devices(4 << 30, 8 << 30)

    def layers(**options: int | str) -> list[int | str]:
        return list(gpu_layers(files, weights, RuntimeOptions(**options), found).values())  # type: ignore[arg-type]

    assert layers() == [5, 3, 3]
    assert layers(gpu_layers=2) == [2, 2, 2]
    assert layers(base_gpu_layers=1) == [1, 3, 3]
    assert layers(gpu_layers="all", tuned_gpu_layers="auto") == [5, 3, 3]
    assert layers(gpu_layers="all") == ["all"] * 3
    assert layers(rpc="127.0.0.1:1") == ["auto"] * 3
    tight = devices(256 * MIB + scaled_to_pair(files), 8 << 30)
    options = RuntimeOptions()
    assert list(gpu_layers(files, weights, options, tight).values()) == [0, 3, 3]
    assert list(gpu_layers(files, weights, options, found[:1]).values()) == ["auto"] * 3


def scaled_to_pair(files: dict[str, Path]) -> int:
    """Bytes that tuned and reference take on a GPU."""
    needed = need_of_files(files)
    return sum(model.on_gpu(model.n_layers) for model in needed.models if model.role != "base")
