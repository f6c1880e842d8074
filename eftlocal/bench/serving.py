"""Section `serving`: `eftlocal serve` with eight clients, against the engine without HTTP."""

from __future__ import annotations

import http.client
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import BackendError
from ..experts import resolve_weights
from ..generation import Request
from ..loading import load
from ..options import option_name
from .report import Column, Table
from .subject import PLAIN, Subject
from .target import Target
from .timing import Effort, interleaved, ratio

CLIENTS = 8
"""Requests at once, and sequences of the model."""

_CTX = 4096
_LONG, _SHORT = 2000, 32
_LEAST_TOKENS = 32
_READY = re.compile(r"eftlocal serves .* at http://([^:/]+):(\d+)")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    def stream(self, body: Mapping[str, Any]) -> float:
        """Ask for a completion as a stream, and read all of it; seconds until its first token."""
        start = time.perf_counter()
        text = json.dumps({**body, "stream": True})
        headers = {"Content-Type": "application/json"}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=600)
        with closing(connection):
            connection.request("POST", "/v1/completions", text, headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise BackendError(f"the server answers {answer.status}: {answer.read()[:200]!r}")
            while (line := answer.readline()) and not line.startswith(b"data: "):
                pass
            seconds = time.perf_counter() - start
            answer.read()
        return seconds


def serving(target: Target, effort: Effort) -> tuple[Table, ...]:
    """Throughput of eight clients, and what a short request waits for beside a long prompt."""
    settings = {"parallel": CLIENTS, "ctx": _CTX}
    with load(**{**target.runtime, **target.generation, **settings}) as model:
        subject = Subject(model, effort, target.random)
        n_tokens = max(_LEAST_TOKENS, subject.n_tokens // 2)
        bodies = [_body(subject, _SHORT + 3 * i, n_tokens, i) for i in range(CLIENTS)]
        long = _body(subject, _LONG, 1, 0)
        with server(target, settings) as address:
            kinds: dict[str, Callable[[], float]] = {
                "engine": partial(_engine_seconds, subject, bodies),
                "server": partial(_server_seconds, address, bodies),
            }
            seen = interleaved(kinds, effort.rounds)
            waits = [_waits(address, long, bodies[0], i) for i in range(effort.rounds)]
    return _throughput(seen, n_tokens * CLIENTS), _first_tokens(waits)


def _body(subject: Subject, length: int, n_tokens: int, seed: int) -> dict[str, Any]:
    """A request that does not end before its last token."""
    bias = dict.fromkeys(map(str, subject.model.engine.eog), -100)
    prompt = list(subject.tokens(length))
    temperature = 0.7 * (seed % 2)
    own = {"seed": seed, "temperature": temperature, "max_tokens": n_tokens, "logit_bias": bias}
    return {**PLAIN, **own, "stop": [], "prompt": prompt}


def _engine_seconds(subject: Subject, bodies: Sequence[Mapping[str, Any]]) -> float:
    """Seconds in which the engine alone answers all requests."""
    model = subject.model
    engine = model.engine
    for sequence in range(engine.ensemble.n_sequences):
        engine.ensemble.forget(sequence)
    requests = []
    for body in bodies:
        given = {name: value for name, value in body.items() if name != "prompt"}
        given["logit_bias"] = {int(token): bias for token, bias in body["logit_bias"].items()}
        options = model.options.updated(given)
        prompts = (tuple(body["prompt"]),) * len(engine.ensemble.contexts)
        requests.append(Request(prompts, options, resolve_weights(model.experts, options)))
    start = time.perf_counter()
    generations = [engine.submit(request) for request in requests]
    while any(generation.finish_reason is None for generation in generations):
        engine.step()
    return time.perf_counter() - start


def _server_seconds(address: Address, bodies: Sequence[Mapping[str, Any]]) -> float:
    """Seconds in which the server streams all answers to as many clients."""
    start = time.perf_counter()
    with ThreadPoolExecutor(len(bodies)) as clients:
        list(clients.map(address.stream, bodies))
    return time.perf_counter() - start


def _waits(
    address: Address, long: Mapping[str, Any], short: Mapping[str, Any], turn: int
) -> tuple[float, float, float]:
    """Seconds to the first token: of a short request alone, beside a long one, of the long one.

    No two prompts begin alike, so that nothing is cached.
    """
    short, long = ({**body, "prompt": body["prompt"][turn:]} for body in (short, long))
    alone = address.stream({**short, "prompt": short["prompt"][1:], "max_tokens": 1})
    seen: list[float] = []
    other = threading.Thread(target=lambda: seen.append(address.stream(long)))
    other.start()
    time.sleep(alone)
    beside = address.stream({**short, "max_tokens": 1})
    other.join()
    return alone, beside, seen[0]


@contextmanager
def server(target: Target, settings: Mapping[str, Any]) -> Iterator[Address]:
    """Run `eftlocal serve` with a target on a free port, in a process of its own.

    Raises:
        BackendError: with its last line, where it does not start.
    """
    options = {**target.runtime, **target.generation, **settings}
    command = [sys.executable, "-m", "eftlocal", "serve", "--port", "0", "--log-level", "error"]
    command += _flags(options)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            lines = []
            for line in process.stderr or ():
                lines.append(line.strip())
                if found := _READY.search(line):
                    yield Address(found[1], int(found[2]))
                    return
            raise BackendError(f"eftlocal serve does not start: {lines[-1] if lines else '?'}")
        finally:
            process.terminate()


def _flags(options: Mapping[str, Any]) -> list[str]:
    """Arguments of `load` as arguments of the command line."""
    flags: list[str] = []
    for name, value in options.items():
        flag = "--" + option_name({"entry": "model"}.get(name, name)).replace("_", "-")
        if value is True or value is False:
            flags.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, Mapping):
            for key, item in value.items():
                flags += [flag, f"{key}={item}"]
        elif value is not None:
            for item in value if isinstance(value, list | tuple) else (value,):
                flags += [flag, str(item)]
    return flags


def _throughput(seen: Mapping[str, Sequence[float]], n_tokens: int) -> Table:
    rows = tuple(
        (name, n_tokens / statistics.median(seen[name]), ratio(seen["engine"], seen[name]))
        for name in ("engine", "server")
    )
    columns = (
        Column("what", "what"),
        Column("tokens_per_second", "tokens/s", 1),
        Column("share_of_engine", "of the engine", 2),
    )
    notes = (
        f"{CLIENTS} requests at once, prompts of {_SHORT} tokens and more, which are read, too.",
        "Clients read streams on the same machine, and take some of its time.",
    )
    return Table("eftlocal serve with eight clients", columns, rows, notes)


def _first_tokens(waits: Sequence[tuple[float, float, float]]) -> Table:
    names = ("a short request alone", "beside a long prompt", "the long prompt")
    rows = tuple(
        (name, 1e3 * statistics.median(column))
        for name, column in zip(names, zip(*waits, strict=True), strict=True)
    )
    notes = (f"Prompts of {_SHORT} and {_LONG:,} tokens, nothing cached.",)
    columns = (Column("what", "first token of"), Column("ms", "ms", 1))
    return Table("Time to first token", columns, rows, notes)
