"""`eftlocal serve` as a command line: what it takes, what it refuses, what it passes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eftlocal.cli.options import _gather
from eftlocal.cli.serve import _settings, serve
from eftlocal.server.settings import Limits, Settings

from .cli_helpers import environment, files, run
from .conftest import Trio


def settings_for(*args: str) -> Settings:
    """What the server would be told by a command line."""
    with serve.make_context("serve", list(args), auto_envvar_prefix=None) as context:
        given = dict(context.params)
        return _settings(_gather(context, given), given)


def test_defaults() -> None:
    """Loopback, one model, open: the settings' own defaults."""
    settings = settings_for()
    (served,) = settings.served
    assert (served.name, served.entry, dict(served.files)) == ("atlas", "atlas", {})
    assert dict(served.generation) == {}
    assert served.runtime["parallel"] == 4
    assert settings == Settings(served=settings.served)


def test_every_option_is_passed_on(tmp_path: Path) -> None:
    """Each field of the settings has its option."""
    keys = tmp_path / "keys"
    keys.write_text("# ours\nthree\n")
    args = {
        "--host": "0.0.0.0", "--port": "0", "--api-key": "one", "--api-key-file": str(keys),
        "--allow-host": "llm.example", "--cors-origin": "https://App.example",
        "--queue": "7", "--max-loaded": "2", "--idle-timeout": "60", "--grace": "1.5",
        "--max-body": "2M", "--log-level": "debug", "--parallel": "3", "--kv-unified": "off",
        "--ctx": "512", "--alpha": "dynamic", "--temperature": "0",
    }  # fmt: skip
    verbose, switches = ("--verbose", "--verbose"), ("--insecure", "--open")
    flat = [part for pair in args.items() for part in pair]
    settings = settings_for(*flat, "--api-key", "two", "--log-json", *verbose, *switches)
    (served,) = settings.served
    assert settings == Settings(
        served=(served,),
        host="0.0.0.0",
        port=0,
        open_page=True,
        keys=("one", "two", "three"),
        insecure=True,
        allow_hosts=("llm.example",),
        cors_origins=("https://app.example",),
        queue=7,
        max_loaded=2,
        idle_timeout=60.0,
        grace=1.5,
        limits=Limits(max_body=2 * 2**20),
        log_json=True,
        log_level="debug",
        verbose=True,
    )
    assert served.runtime == dict(served.runtime) | {"parallel": 3, "kv_unified": "off", "ctx": 512}
    assert dict(served.generation) == {"alpha": "dynamic", "temperature": 0.0}


def test_several_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """-m is repeatable, aliases get their entry's name; the environment names several too."""
    names = [served.name for served in settings_for("-m", "atlas", "-m", "atlas-experts").served]
    assert names == ["atlas", "atlas-experts"]
    monkeypatch.setenv("EFTLOCAL_MODEL", "atlas-experts atlas")
    assert [served.name for served in settings_for().served] == ["atlas-experts", "atlas"]
    assert [served.name for served in settings_for("-m", "atlas").served] == ["atlas"]


def test_an_entry_may_say_how_many_at_once(tmp_path: Path, trio: Trio) -> None:
    """The command line wins over models.toml, and that over the default."""
    file = tmp_path / "models.toml"
    roles = "\n".join(f'{role} = {{ path = "{path}" }}' for role, path in trio._asdict().items())
    file.write_text(f"[models.x]\n{roles}\nparallel = 2\n")
    entry = ("--models", str(file), "-m", "x")
    for args, parallel in ((entry, 2), ((*entry, "--parallel", "5"), 5), ((), 4)):
        (served,) = settings_for(*args).served
        assert served.runtime["parallel"] == parallel


def test_files(trio: Trio) -> None:
    """A model of files is named after the file of its base."""
    (served,) = settings_for(*files(trio)).served
    assert (served.entry, served.name) == (None, "base.gguf")
    assert served.files == {role: str(path) for role, path in trio._asdict().items()}


def test_options_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As those of other commands; a flag wins."""
    env = {
        "EFTLOCAL_HOST": "::1", "EFTLOCAL_PORT": "81", "EFTLOCAL_API_KEY": "a b",
        "EFTLOCAL_PARALLEL": "2", "EFTLOCAL_MAX_BODY": "1k", "EFTLOCAL_LOG_JSON": "1",
        "EFTLOCAL_CORS_ORIGIN": "https://a.example http://b.example:3000",
    }  # fmt: skip
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    settings = settings_for("--port", "82")
    assert (settings.host, settings.port, settings.keys) == ("::1", 82, ("a", "b"))
    assert settings.cors_origins == ("https://a.example", "http://b.example:3000")
    assert (settings.limits.max_body, settings.log_json) == (1024, True)
    assert settings.served[0].runtime["parallel"] == 2
    path = tmp_path / "s"
    assert settings_for("--unix-socket", str(path)).unix_socket == path


WRONG: dict[str, tuple[list[str], str]] = {
    "open to all": (["--host", "0.0.0.0"], "give --api-key-file FILE, or --insecure"),
    "any IPv6": (["--host", "::"], "can be reached by other machines"),
    "a name": (["--host", "box.local"], "can be reached by other machines"),
    "port": (["--port", "70000"], "70000 is not in the range"),
    "port is no number": (["--port", "http"], "'http' is not a valid int"),
    "two places": (["--unix-socket", "s", "--port", "1"], "not both"),
    "a page at a socket": (["--unix-socket", "s", "--open"], "--unix-socket or --open, not both"),
    "empty key": (["--api-key", ""], "an API key is empty"),
    "odd key": (["--api-key", "s3cret key"], "use ASCII"),
    "no key file": (["--api-key-file", "/nowhere/keys"], "cannot read the keys"),
    "empty key file": (["--api-key-file", "/dev/null"], "there is no key in it"),
    "origin": (["--cors-origin", "app.example"], "use one such as https://app.example"),
    "size": (["--max-body", "much"], "is not a size such as 512K or 8M"),
    "size of none": (["--max-body", "0"], "is not a size"),
    "parallel": (["--parallel", "0"], "0 is not in the range"),
    "queue": (["--queue", "-1"], "-1 is not in the range"),
    "grace": (["--grace", "nan"], "is not a number of seconds from 0 to 3600"),
    "idle": (["--idle-timeout", "inf"], "is not a number of seconds"),
    "level": (["--log-level", "loud"], "'loud' is not one of"),
    "twice": (["-m", "atlas", "-m", "atlas"], "atlas is given twice"),
    "an option of requests": (["--top-p", "3"], "top_p = 3.0 is not allowed"),
    "weights": (["--weight", "nobody=1"], "the experts are: tuned"),
    "weights of the second": (["-m", "atlas-experts", "-m", "atlas", "--lambda", "0.5"], "lambda"),
    "entry and files": (["-m", "atlas", "--base", "x.gguf"], "not both"),
    "argument": (["atlas"], "unexpected extra argument"),
}


@pytest.mark.parametrize(("args", "message"), WRONG.values(), ids=WRONG)
def test_wrong_usage_is_one_line_and_exit_code_2(args: list[str], message: str) -> None:
    """Before anything is loaded or bound; keys are not repeated."""
    result = run("serve", *args)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert "s3cret" not in result.stderr


def test_unknown_entries_are_exit_code_1() -> None:
    """As everywhere, with the entries that there are; also where it is the second one."""
    for args in (["-m", "no-such"], ["-m", "atlas", "-m", "no-such"]):
        result = run("serve", *args)
        assert result.exit_code == 1
        assert "no-such" in result.stderr and result.stderr.count("\n") == 1


def test_help_is_quick_and_names_everything(tmp_path: Path) -> None:
    """The web packages are not imported for it."""
    heavy = ("fastapi", "starlette", "uvicorn", "pydantic", "prometheus_client", "numpy")
    code = (
        "import sys\nfrom eftlocal.cli.main import cli\n"
        "try:\n    cli.main(['serve', '--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    env = environment(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    *text, last = done.stdout.splitlines()
    assert last == "[]"
    assert "process lists show" in " ".join(" ".join(text).split())


def test_sizes() -> None:
    """Bytes, or with a unit."""
    found: dict[str, Any] = {
        text: settings_for("--max-body", text).limits.max_body
        for text in ("1000", "1k", "2KB", "3MiB", "1G")
    }
    assert list(found.values()) == [1000, 1024, 2048, 3 * 2**20, 2**30]
