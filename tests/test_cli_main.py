"""The `eftlocal` command as a whole: help, errors, environment, shell completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest

from eftlocal.cli import main as main_module
from eftlocal.cli.tables import GENERATION, RUNTIME
from eftlocal.errors import BackendError
from eftlocal.options import GenerationOptions, RuntimeOptions

from .cli_helpers import files, process, run
from .conftest import SMALL, Trio
from .gguf_models import write_gguf

HEAVY = ("numpy", "llama_cpp", "rich", "prompt_toolkit", "jinja2", "huggingface_hub")
NO_OPTION = {"top_logprobs", "parallel", "kv_unified", "trace"}
"""Fields that only Python and HTTP need, or that an option with a file name stands for."""


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's conversations out of the tests."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("EFTLOCAL_THREADS", "1")


def test_help_lists_every_command() -> None:
    """`--help` names the commands and how to get shell completion."""
    result = run("--help")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in (*main_module.COMMANDS, "_EFTLOCAL_COMPLETE"))


@pytest.mark.parametrize(
    "args", [["--help"], ["chat", "--help"], ["complete", "--help"], ["generate", "--help"]]
)
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    """Help needs click alone, which is what makes it fast."""
    code = (
        "import sys\nfrom eftlocal.cli.main import cli\n"
        f"try:\n cli.main({args})\nexcept SystemExit:\n pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version() -> None:
    """`--version` prints the package's version."""
    from eftlocal import __version__

    assert run("--version").stdout == f"eftlocal {__version__}\n"


@pytest.mark.parametrize("name", main_module.COMMANDS)
def test_every_command_has_help_with_examples(name: str) -> None:
    """Each command explains itself and has examples."""
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    assert f"eftlocal {name}" in result.stdout


def test_every_option_of_the_dataclasses_is_on_the_command_line() -> None:
    """The tables of options and the dataclasses name the same options."""
    known = {item.name for kind in (GenerationOptions, RuntimeOptions) for item in fields(kind)}
    assert {*GENERATION, *RUNTIME} == known - NO_OPTION


def test_help_shows_the_defaults_of_the_dataclasses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Help reads defaults where they are stated, and no option has one of its own."""
    monkeypatch.delenv("EFTLOCAL_THREADS")
    text = " ".join(run("complete", "--help").stdout.split())
    assert f"[default: {GenerationOptions().temperature}]" in text
    assert f"[default: {RuntimeOptions().batch}]" in text
    command = main_module.cli.get_command(click.Context(main_module.cli), "complete")
    assert command is not None
    params = command.make_context("complete", ["hi"]).params
    assert all(params[name] in (None, ()) for name in {**GENERATION, **RUNTIME})


THREE_FILES = [
    *("--base", "x.gguf", "--tuned", "a.gguf", "--tuned", "b.gguf", "--tuned", "c.gguf"),
    *("--reference", "r.gguf"),
]
"""Files that do not exist: their names say enough for the mistakes here."""

WRONG_USAGE = {
    "unknown command": (["nonsense"], "No such command 'nonsense'"),
    "unknown option": (["chat", "--nope"], "No such option"),
    "missing value": (["complete", "--alpha"], "requires an argument"),
    "not a number": (["complete", "--top-p", "x", "hi"], "'x' is not a valid float"),
    "not allowed": (["complete", "--top-p", "3", "hi"], "top_p = 3.0 is not allowed"),
    "not a draft": (["complete", "--draft", "many", "hi"], "'many' is not auto, off or an integer"),
    "draft too long": (["complete", "--draft", "99", "hi"], "draft = 99 is not allowed"),
    "no bias": (["complete", "--logit-bias", "4", "hi"], "42=-1.5"),
    "nan": (["complete", "--alpha", "nan", "hi"], "alpha = nan is not allowed; use a number"),
    "alpha": (
        ["complete", "--alpha", "fast", "hi"],
        "'fast' is neither a number nor one of dynamic, grid, one-sided, joint",
    ),
    "range": (["chat", "--alpha-high", "-1", "hi"], "alpha_high = -1.0 is not allowed; use a num"),
    "every": (["chat", "--alpha-every", "-1", "hi"], "alpha_every = -1 is not allowed; use 0 (the"),
    "filter of 0": (["chat", "--upscale-top-p", "0", "hi"], "upscale_top_p = 0.0 is not allowed"),
    "filter": (["chat", "--upscale-top-p", "1.5", "hi"], "use a number above 0, up to 1 (off)"),
    "filter nan": (["chat", "--upscale-top-p", "nan", "hi"], "upscale_top_p = nan is not allowed"),
    "part": (
        ["chat", "--part", "floor", "hi"],
        "'floor' is not one of 'fused', 'base', 'tuned', 'reference'",
    ),
    "no weight": (["chat", "--weight", "math", "hi"], "such as math=0.5"),
    "weight nan": (["chat", "--weight", "a=nan", "hi"], "weight = {'a': nan} is not allowed"),
    "weight of nobody": (["chat", "--weight", "nosuch=1", "hi"], "the experts are: tuned"),
    "no lambda": (["chat", "--lambda", "half", "hi"], "'half' is not a valid float"),
    "lambda of one": (["chat", "--lambda", "0.3", "hi"], "use it with two experts, not 1 (tuned)"),
    "both": (
        ["chat", "--lambda", "0.3", "--weight", "a=1", "hi"],
        "lambda = 0.3 is not allowed; use either weight or lambda",
    ),
    "negative context": (["chat", "--ctx", "-1", "hi"], "ctx = -1 is not allowed"),
    "cache type": (["chat", "--cache-type", "q", "hi"], "cache_type = 'q' is not allowed"),
    "empty stop": (["chat", "--stop", "", "hi"], "stop"),
    "one file": (["chat", "--base", "x.gguf", "hi"], "--tuned and --reference missing"),
    "three experts": (
        ["chat", *THREE_FILES, "--lambda", "0.3", "hi"],
        "use it with two experts, not 3 (a, b, c); weight takes any number",
    ),
    "files": (
        ["chat", *THREE_FILES, "--weight", "d=1", "hi"],
        "d=1 is not allowed; the experts are: a",
    ),
    "pairs": (
        ["chat", *THREE_FILES, "--reference", "s.gguf", "hi"],
        "3 tuned and 2 reference files do not go together",
    ),
    "entry and files": (["chat", "-m", "a", "--base", "x", "hi"], "not both"),
}


@pytest.mark.parametrize(("args", "message"), WRONG_USAGE.values(), ids=WRONG_USAGE)
def test_wrong_usage_is_one_line_and_exit_code_2(args: list[str], message: str) -> None:
    """A wrong command line says what is wrong, before anything is loaded."""
    result = run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("eftlocal: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_unusable_models_are_one_line_and_exit_code_1(trio: Trio, tmp_path: Path) -> None:
    """Missing, truncated and foreign files, unknown entries: one line each."""
    truncated = tmp_path / "truncated.gguf"
    truncated.write_bytes(trio.base.read_bytes()[:100_000])
    text = tmp_path / "text.gguf"
    text.write_text("hello")
    for wrong in (tmp_path / "missing.gguf", truncated, text, tmp_path):
        result = run("complete", *files(trio._replace(base=wrong)), "hi")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.count("\n") == 1
        assert str(wrong) in result.stderr
    result = run("chat", "-m", "no-such-entry", "hi")
    assert result.exit_code == 1
    assert "no-such-entry" in result.stderr


def test_unexpected_errors_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a bug prints a traceback; EFTLOCAL_DEBUG shows it to developers."""

    def explode(_: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(main_module.CommandGroup, "invoke", lambda self, ctx: explode(ctx))
    result = run("chat", "hi")
    assert result.exit_code == 1
    assert result.stderr.startswith("eftlocal: internal error: RuntimeError: first line second")
    assert result.stderr.count("\n") == 1
    assert isinstance(run("chat", env={"EFTLOCAL_DEBUG": "1"}).exception, RuntimeError)


@pytest.mark.parametrize(
    ("error", "code"), [(BackendError("it failed"), 1), (KeyboardInterrupt(), 130)], ids=str
)
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    """Failures exit with 1, Ctrl-C with 130."""

    def fail(self: object, context: object) -> None:
        raise error

    monkeypatch.setattr(main_module.CommandGroup, "invoke", fail)
    assert run("chat", "hi").exit_code == code


def test_options_come_from_the_environment(trio: Trio) -> None:
    """EFTLOCAL_<NAME> sets an option, and a flag wins over it."""
    env = {f"EFTLOCAL_{role.upper()}": str(path) for role, path in trio._asdict().items()}
    env |= {"EFTLOCAL_MAX_TOKENS": "3", "EFTLOCAL_LOGIT_BIAS": "2=-1000 262=-1000"}
    by_environment = run("complete", "--json", "hi", env=env)
    assert by_environment.exit_code == 0, by_environment.stderr
    assert len(json.loads(by_environment.stdout)["tokens"]) == 3
    by_flag = run("complete", "--json", "--max-tokens", "2", "hi", env=env)
    assert len(json.loads(by_flag.stdout)["tokens"]) == 2
    assert run("complete", "-m", "no-such-entry", "hi", env=env).exit_code == 1
    wrong = run("complete", "hi", env=env | {"EFTLOCAL_TOP_P": "3"})
    assert wrong.exit_code == 2


def test_experts_come_from_the_environment(trio: Trio, tmp_path: Path) -> None:
    """Several files of a role are listed as in PATH, weights with blanks between them."""
    other = write_gguf(tmp_path / "other.gguf", SMALL, seed=9)
    args = ["complete", "--json", "--max-tokens", "2", "hi"]
    env = {
        "EFTLOCAL_BASE": str(trio.base),
        "EFTLOCAL_TUNED": os.pathsep.join(map(str, (trio.tuned, other))),
        "EFTLOCAL_REFERENCE": str(trio.reference),
    }
    weighted = run(*args, env={**env, "EFTLOCAL_WEIGHT": "tuned=0.5 other=-1"})
    assert weighted.exit_code == 0, weighted.stderr
    assert json.loads(weighted.stdout)["alphas"] == [[0.5, -1.0]] * 2
    mixed = run(*args, env={**env, "EFTLOCAL_LAMBDA": "0.25", "EFTLOCAL_ALPHA": "2"})
    assert json.loads(mixed.stdout)["alphas"] == [[0.5, 1.5]] * 2
    assert json.loads(run(*args, env=env).stdout)["alphas"] == [[0.5, 0.5]] * 2


def test_weights_are_checked_against_the_entry(trio: Trio, tmp_path: Path) -> None:
    """An entry knows its experts before its files are looked for."""
    file = tmp_path / "models.toml"
    pair = f'tuned = {{ path = "nowhere" }}, reference = {{ path = "{trio.reference}" }}'
    file.write_text(
        f'[models.x]\nbase = {{ path = "{trio.base}" }}\nexperts = '
        f'[{{ name = "math", {pair} }}, {{ name = "code", {pair} }}]\n'
    )
    entry = ["complete", "--models", str(file), "-m", "x"]
    wrong = run(*entry, "--weight", "maths=1", "hi")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "is not allowed; the experts are: math, code" in wrong.stderr
    missing = run(*entry, "--lambda", "0.5", "hi")
    assert missing.exit_code == 1
    assert "nowhere: no such file" in missing.stderr


def test_stop_text_from_the_environment_stays_whole(trio: Trio) -> None:
    """A stop string with blanks is one string, not several."""
    env = {"EFTLOCAL_STOP": "a b", "EFTLOCAL_SEED": "1"}
    one = run("complete", *files(trio), "--max-tokens", "20", "hi", env=env)
    same = run("complete", *files(trio), "--max-tokens", "20", "--seed", "1", "hi")
    assert one.stdout == same.stdout


def test_shell_completes_commands_options_and_entries(tmp_path: Path) -> None:
    """Completion as bash asks for it: commands, options, names of entries."""

    def complete(words: str, position: int) -> str:
        return process(
            tmp_path,
            _EFTLOCAL_COMPLETE="bash_complete",
            COMP_WORDS=words,
            COMP_CWORD=str(position),
        ).stdout

    assert "plain,complete" in complete("eftlocal comp", 1)
    assert "plain,--temperature" in complete("eftlocal chat --temp", 2)
    assert "plain,atlas" in complete("eftlocal chat -m at", 3)
    assert "plain,auto" in complete("eftlocal chat --gpu-layers a", 3)
    assert "plain,dynamic" in complete("eftlocal chat --alpha d", 3)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_exist(tmp_path: Path, shell: str) -> None:
    """Each shell gets its script."""
    done = process(tmp_path, _EFTLOCAL_COMPLETE=f"{shell}_source")
    assert "eftlocal" in done.stdout
