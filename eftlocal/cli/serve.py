"""`eftlocal serve`: models behind an HTTP API."""

from __future__ import annotations

import math
import os
import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..errors import UsageError
from ..options import RuntimeOptions
from ..registry import load_registry
from .downloads import offer
from .options import Arguments, SectionCommand, model_options, option, with_options
from .tables import SWITCH
from .types import ParamType

if TYPE_CHECKING:
    from ..server.settings import Served, Settings

PARALLEL = 4
"""Sequences per model where neither the command line nor the entry says a number."""

_EPILOG = """\b
Examples:
  eftlocal serve --open
  eftlocal serve -m qwen2.5-14b --port 8000 --parallel 8
  eftlocal serve -m atlas -m two-experts --max-loaded 1 --idle-timeout 600
  eftlocal serve --alpha dynamic --temperature 0
  eftlocal serve --host 0.0.0.0 --api-key-file keys.txt
  eftlocal serve --unix-socket /run/user/1000/eftlocal.sock
  curl http://127.0.0.1:8080/v1/chat/completions -d '{"messages":
      [{"role": "user", "content": "What is the capital of France?"}]}'

Options of a generation, such as --alpha, are what requests get that do not say otherwise.
Keys belong in a file or in EFTLOCAL_API_KEY: a command line is visible to other users.
"""
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


class Size(ParamType):
    """A number of bytes, such as 500000, 512K or 8M."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes."""
        found = re.fullmatch(r"([0-9]{1,12})([kmg]?)(?:i?b)?", str(value).strip().lower())
        if found is None or not int(found[1]):
            self.fail(f"{value!r} is not a size such as 512K or 8M", param, ctx)
        return int(found[1]) * _UNITS[found[2]]


class Seconds(ParamType):
    """A time in seconds, 0 or more."""

    name = "SECONDS"

    def __init__(self, most: float = 1e9) -> None:
        self._most = most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds <= self._most:
            self.fail(f"{value!r} is not a number of seconds from 0 to {self._most:g}", param, ctx)
        return seconds


_OPTIONS = (
    option("--host", default="127.0.0.1", show_default=True, section="Server",
           metavar="ADDRESS", help="Address to listen at."),
    option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535),
           section="Server", help="Port to listen at; 0 takes a free one."),
    option("--unix-socket", type=click.Path(), metavar="PATH", section="Server",
           help="Listen at a Unix socket instead, which only this user may open."),
    option("--open", "open_page", is_flag=True, section="Server",
           help="Open the page, a chat with these models, in the browser."),
    option("--parallel", type=click.IntRange(1, 256), section="Server",
           help=f"Requests that a model works on at once.  [default: {PARALLEL}]"),
    option("--kv-unified", type=SWITCH, section="Server",
           help="Whether they share one KV cache; auto shares it where there are several."),
    option("--queue", default=64, show_default=True, type=click.IntRange(0, 100_000),
           section="Server", help="Requests that may wait for that, per model; more get 503."),
    option("--max-loaded", default=0, type=click.IntRange(0), section="Server",
           help="Models in memory at once.  [default: as many as fit]"),
    option("--idle-timeout", type=Seconds(),
           section="Server", help="Unload a model that nothing asked for so long.  "
           "[default: what its entry says, else never]"),
    option("--grace", default=4.0, show_default=True, type=Seconds(3600), section="Server",
           help="How long running requests may go on after SIGTERM or Ctrl-C."),
    option("--api-key", "api_keys", multiple=True, metavar="KEY", section="Security",
           help="Ask requests for this key; repeatable. Better in a file or in EFTLOCAL_API_KEY: "
           "process lists show command lines."),
    option("--api-key-file", type=click.Path(), metavar="FILE", section="Security",
           help="Ask requests for one of the keys in this file, one per line."),
    option("--insecure", is_flag=True, section="Security",
           help="Let other machines in without a key, where --host can be reached by them."),
    option("--allow-host", "allow_hosts", multiple=True, metavar="NAME", section="Security",
           help="Answer to this name in the Host header too; repeatable, * is any."),
    option("--cors-origin", "cors_origins", multiple=True, metavar="ORIGIN", section="Security",
           help="Let web pages of this origin use the server; repeatable, * is any."),
    option("--max-body", default="8M", show_default=True, type=Size(), section="Security",
           help="Largest body of a request."),
    option("--log-json", is_flag=True, section="Log", help="Write the log as JSON, one object "
           "per line."),
    option("--log-level", default="info", show_default=True, section="Log",
           type=click.Choice(["debug", "info", "warning", "error"]), help="What the log has."),
)  # fmt: skip


@click.command(cls=SectionCommand, epilog=_EPILOG)
@with_options(*_OPTIONS)
@partial(model_options, several=True)
def serve(arguments: Arguments, **given: Any) -> None:
    """Serve models over HTTP, with OpenAI's and Ollama's API.

    Only this machine can reach the server, unless --host says otherwise; then it needs a key.
    """
    settings = _settings(arguments, given)
    for each in _each(arguments):
        each.check()
        offer(each)
    from ..server.run import run

    run(settings)
    # Everything is closed; what the interpreter tidies up takes a second on a busy machine.
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)


def _each(arguments: Arguments) -> list[Arguments]:
    """One set of arguments per model."""
    if arguments.files or not arguments.entries:
        return [arguments]
    return [replace(arguments, entry=name) for name in arguments.entries]


def _settings(arguments: Arguments, given: dict[str, Any]) -> Settings:
    """Check the options together and gather them.

    Raises:
        UsageError: for what is not allowed; nothing has been loaded by then.
        RegistryError: for an unknown entry.
    """
    from ..server.security.keys import check_keys, read_key_file
    from ..server.security.origins import origin_of
    from ..server.settings import Limits, Settings

    if given["unix_socket"] and _is_set("host", "port"):
        raise UsageError("give --unix-socket, or --host and --port, not both")
    if given["unix_socket"] and given["open_page"]:
        raise UsageError("give --unix-socket or --open, not both: browsers open no Unix sockets")
    keys = given["api_keys"]
    if given["api_key_file"]:
        keys += read_key_file(Path(given["api_key_file"]))
    own = {"parallel": given["parallel"], "kv_unified": given["kv_unified"]}
    return Settings(
        served=tuple(_served(each, own) for each in _each(arguments)),
        host=given["host"],
        port=given["port"],
        unix_socket=Path(given["unix_socket"]) if given["unix_socket"] else None,
        open_page=given["open_page"],
        keys=check_keys(keys),
        insecure=given["insecure"],
        allow_hosts=given["allow_hosts"],
        cors_origins=tuple(map(origin_of, given["cors_origins"])),
        queue=given["queue"],
        max_loaded=given["max_loaded"],
        idle_timeout=given["idle_timeout"],
        grace=given["grace"],
        limits=Limits(max_body=given["max_body"]),
        log_json=given["log_json"],
        log_level=given["log_level"],
        verbose=arguments.verbose > 1,
    )


def _served(arguments: Arguments, own: dict[str, Any]) -> Served:
    """One model as the server takes it.

    Args:
        arguments: of this model.
        own: runtime options that only a server has; None where they were not given.
    """
    from ..server.settings import Served

    runtime = arguments.runtime | {name: value for name, value in own.items() if value is not None}
    name = arguments.label
    if not arguments.files:
        entry = load_registry(arguments.models).find(name)
        name = entry.name
        runtime = {"parallel": PARALLEL} | dict(entry.runtime) | runtime
    runtime.setdefault("parallel", PARALLEL)
    RuntimeOptions().updated(runtime)
    return Served(
        name=name,
        entry=None if arguments.files else name,
        files=arguments.files,
        models=arguments.models,
        runtime=runtime,
        generation=arguments.generation,
    )


def _is_set(*names: str) -> bool:
    """Whether one of these options was given on the command line."""
    source = click.get_current_context().get_parameter_source
    return any(source(name) is ParameterSource.COMMANDLINE for name in names)
