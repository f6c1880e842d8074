"""`eftlocal doctor`: what it reports, its advice, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eftlocal
from eftlocal.context import Block
from eftlocal.doctor.prompts import compare_prompts, judge
from eftlocal.llama.devices import build, devices
from eftlocal.llama.library import lib
from eftlocal.memory import can_rewind
from eftlocal.prompts import plain_transcript

from . import gguf_bytes
from .cli_helpers import files, process, run
from .conftest import N_VOCAB, Trio
from .gguf_models import CHAT_TEMPLATE, ModelShape, vocabulary, write_gguf
from .test_gguf_header import read

FAMILY_MEMBERS = ("atlas", "atlas-down", "atlas-frontier", "atlas-experts")


def doctor(*args: str, code: int = 0) -> dict[str, Any]:
    """What `doctor --json` prints; it has to end with `code`."""
    done = run("doctor", "--json", *args)
    assert done.exit_code == code, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def entry_file(folder: Path, trio: Trio, **others: Path) -> str:
    """A models.toml with the entry "mine", a trio with some files replaced."""
    lines = [f'{role} = {{ path = "{path}" }}' for role, path in (trio._asdict() | others).items()]
    file = folder / "models.toml"
    file.write_text("[models.mine]\n" + "\n".join(lines) + "\nctx = 256\n")
    return str(file)


def test_the_embedded_entries_are_well() -> None:
    """Versions, build, devices and places are there; every atlas entry works."""
    found = doctor()
    assert found["versions"]["eftlocal"] == eftlocal.__version__
    assert found["devices"][0]["name"] == "RAM"
    assert found["build"]["rpc"] == lib.llama_supports_rpc()
    entries = {entry["name"]: entry for entry in found["entries"]}
    for name in FAMILY_MEMBERS:
        assert entries[name]["works"], name
        assert entries[name]["can_draft"] and entries[name]["fits"]
        assert entries[name]["n_tokens"] == 2048
        assert sum(entries[name]["bytes"].values()) == 2 * entries[name]["bytes"]["total"]


def test_the_table_names_entries_and_ends_with_advice() -> None:
    """As a terminal shows it."""
    done = run("doctor")
    assert done.exit_code == 0
    for part in ("llama-cpp-python  0.3", "CPU kernels", "RPC", "RAM", "downloads", "ENTRY"):
        assert part in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["atlas", "ok", "2,048"] in [row[:3] for row in rows]


def test_a_named_model_is_loaded_and_asked(trio: Trio) -> None:
    """Base and reference are compared after the template and after plain text."""
    found = doctor(*files(trio), "--threads", "1")
    assert len(found["entries"]) == 1
    assert 0 <= found["prompts"]["template"] <= 1


def test_the_distance_is_total_variation(trio: Trio) -> None:
    """Up to what lies outside of the likeliest tokens, which counts as different."""
    with eftlocal.load(**trio._asdict(), threads=1) as model:
        report = compare_prompts(model, ["Hello"])
        ids = model.tokenize(plain_transcript([{"role": "user", "content": "Hello"}]), special=True)
        ensemble = model.engine.ensemble
        rows = []
        for place in (ensemble.roles.base, ensemble.roles.experts[0][1]):
            context = ensemble.contexts[place]
            context.rewind(0, len(context.tokens(0)))
            rows.append(context.decode([Block(0, ids, 1)]).astype(np.float64)[0])
        base, reference = (np.exp(row) / np.exp(row).sum() for row in rows)
        variation = np.abs(base - reference).sum() / 2
        top = np.union1d(np.argsort(base)[-20:], np.argsort(reference)[-20:])
        outside = np.minimum(base, reference).sum() - np.minimum(base, reference)[top].sum()
        assert variation - 1e-4 <= report.plain <= variation + outside + 1e-4


def test_strong_disagreement_is_a_warning() -> None:
    """Only where it is strong, and plain text would do better."""
    (problem,) = judge(0.97, 0.41)
    assert "0.97" in problem.text and "tuned-only" in problem.advice
    assert not problem.is_fatal
    assert judge(0.5, 0.1) == judge(0.97, 0.9) == ()


@pytest.mark.parametrize("named", [False, True])
def test_damaged_files_are_a_problem(trio: Trio, tmp_path: Path, named: bool) -> None:
    """With the file's name, advice, and exit code 1."""
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(trio.base.read_bytes()[:-5])
    models = entry_file(tmp_path, trio, base=cut)
    found = doctor("--models", models, *(("-m", "mine") if named else ()), code=1)
    (mine,) = [entry for entry in found["entries"] if entry["name"] == "mine"]
    assert not mine["works"]
    (problem,) = mine["problems"]
    assert "cut.gguf: the file is not complete: its last 5 bytes are missing" in problem["text"]
    assert problem["advice"]


def test_missing_files_are_named(trio: Trio, tmp_path: Path) -> None:
    """A path that leads nowhere is a problem."""
    models = entry_file(tmp_path, trio, tuned=tmp_path / "gone.gguf")
    done = run("doctor", "--models", models)
    assert done.exit_code == 1
    assert "problem: mine: tuned: " in done.stdout
    assert "gone.gguf: no such file" in done.stdout


def test_what_is_not_downloaded_is_a_problem_only_where_it_is_asked_for(tmp_path: Path) -> None:
    """Then the advice is to pull it."""
    file = tmp_path / "models.toml"
    lines = [f'{role} = {{ hf = "a/b", file = "{role}.gguf" }}' for role in Trio._fields]
    file.write_text("[models.far]\n" + "\n".join(lines))
    cache = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    found = json.loads(run("doctor", "--json", "--models", str(file), env=cache).stdout)
    (far,) = [entry for entry in found["entries"] if entry["name"] == "far"]
    assert far["missing"]["base"] == "a/b/base.gguf"
    assert not far["problems"]
    done = run("doctor", "--models", str(file), "-m", "far", env=cache)
    assert done.exit_code == 1
    assert "-> eftlocal pull far" in done.stdout


def test_other_vocabularies_are_found_without_loading(trio: Trio, tmp_path: Path) -> None:
    """With the first token that differs."""
    tokens = list(vocabulary(N_VOCAB))
    tokens[700], tokens[900] = tokens[900], tokens[700]
    shape = ModelShape(n_vocab=N_VOCAB)
    other = write_gguf(tmp_path / "o.gguf", shape, tokens=tokens, chat_template=CHAT_TEMPLATE)
    models = entry_file(tmp_path, trio, tuned=other)
    done = run("doctor", "--models", models)
    assert done.exit_code == 1
    assert "token 700 is " in done.stdout


def test_what_does_not_fit_gets_advice(trio: Trio) -> None:
    """The longest context that fits."""
    args = ("--base", str(trio.base), "--tuned", str(trio.tuned), "--reference")
    done = run("doctor", *args, str(trio.reference), "--ctx", "500000000")
    assert done.exit_code == 1
    assert "it does not fit into the memory that is free now" in done.stdout
    assert "-> use --ctx " in done.stdout


def test_a_context_beyond_training_is_a_note(trio: Trio) -> None:
    """It works, so the exit code is 0."""
    done = run("doctor", *files(trio), "--ctx", "1024", "--threads", "1")
    assert done.exit_code == 0
    assert "note: base.gguf: ctx = 1,024 is more than the models were trained for" in done.stdout
    assert "-> use --ctx 512 or less" in done.stdout


def test_files_of_the_hub_are_pulled_by_their_names(trio: Trio, tmp_path: Path) -> None:
    """Where no entry has them."""
    given = ("--base", "hf:a/b/c.gguf", "--tuned", str(trio.tuned), "--reference")
    cache = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    done = run("doctor", *given, str(trio.reference), env=cache)
    assert done.exit_code == 1
    assert "-> eftlocal pull hf:a/b/c.gguf" in done.stdout


def test_an_invalid_models_toml_is_reported(tmp_path: Path) -> None:
    """Everything else is still told."""
    file = tmp_path / "models.toml"
    file.write_text("[models.x]\nbasis = 1\n")
    done = run("doctor", "--models", str(file))
    assert done.exit_code == 1
    assert "llama-cpp-python" in done.stdout
    assert "problem: " in done.stdout and "models.toml" in done.stdout


def test_devices_and_build_are_llama_cpps() -> None:
    """RAM first; the build's features are those that llama.cpp prints."""
    found = devices()
    assert found[0].kind == "cpu" and 0 < found[0].free <= found[0].total
    info = lib.llama_print_system_info().decode()
    assert build().cpu
    assert all(f"{feature} = 1" in info for feature in build().cpu)
    assert build().gpu == lib.llama_supports_gpu_offload() == (len(found) > 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"blk.0.attn_k.weight", True),
        (b"blk.3.ssm_in.weight", False),
        (b"blk.1.time_mix_r.weight", False),
    ],
)
def test_recurrent_layers_rule_drafts_out(name: bytes, expected: bool) -> None:
    """They cannot take tokens back."""
    header = read(gguf_bytes.header(tensors=[gguf_bytes.tensor(name, [32], 0, 0)], data=128))
    assert can_rewind(header) is expected


def test_a_process_of_its_own(trio: Trio, tmp_path: Path) -> None:
    """Nothing but the report is printed, and nothing is left behind."""
    done = process(tmp_path, "doctor", *files(trio))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith("no problems found")
