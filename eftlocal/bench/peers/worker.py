"""One way to decode, in a process of its own: `python -m eftlocal.bench.peers.worker`.

The first line of standard input is a JSON object {"loop": a key of LOOPS, "arguments": {...}},
every further one {"prompt": ids, "n_tokens": n, "options": {...}}. Each is answered by one line: a
JSON object, or {"error": text} before the process ends.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TextIO

from ..resident import resident_bytes

LOOPS = {
    "eftlocal": ("fused_loop", "FusedLoop"),
    "transformers": ("transformers_loop", "TransformersLoop"),
    "llama objects": ("llama_objects", "LlamaObjects"),
    "base alone": ("llama_objects", "BaseAlone"),
}
"""Name -> (module, class), imported only where it runs: nobody pays for another's packages."""

_STATUS = Path("/proc/self/status")


class Loop(Protocol):
    """Loaded models and a loop over them."""

    @property
    def facts(self) -> dict[str, Any]:
        """What is known after loading; what JSON can hold."""

    def decode(
        self, prompt: Sequence[int], n_tokens: int, **options: Any
    ) -> tuple[float, list[int]]:
        """Continue a prompt greedily: seconds of all tokens without the prompt, and their ids.

        The prompt's last token is decoded within the time.
        """


def make_loop(name: str, arguments: dict[str, Any]) -> Loop:
    """Load what a loop of this name runs on."""
    module, class_name = LOOPS[name]
    made: Loop = getattr(import_module(f".{module}", __package__), class_name)(**arguments)
    return made


def serve(requests: TextIO, replies: TextIO) -> None:
    """Answer requests until there are no more, or one fails."""

    def reply(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=replies, flush=True)

    try:
        job = json.loads(requests.readline())
        loop = make_loop(job["loop"], job["arguments"])
        reply(loop.facts)
        for line in requests:
            request = json.loads(line)
            seconds, tokens = loop.decode(
                request["prompt"], request["n_tokens"], **request["options"]
            )
            memory = {"resident_bytes": resident_bytes(), "peak_bytes": _peak_bytes()}
            reply({"seconds": seconds, "tokens": tokens, **memory})
    except Exception as error:
        reply({"error": " ".join(f"{type(error).__name__}: {error}".split())})


def _peak_bytes() -> int | None:
    """The most memory that was ever resident, where the system says so in /proc.

    getrusage would also count what the parent had when it started this process.
    """
    if not _STATUS.exists():
        return None
    found = [line.split() for line in _STATUS.read_text().splitlines() if line[:6] == "VmHWM:"]
    return int(found[0][1]) * 1024 if found else None


@contextmanager
def _own_channel() -> Iterator[TextIO]:
    """Standard output for the replies alone; what libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)
        yield channel


if __name__ == "__main__":
    with _own_channel() as channel:
        serve(sys.stdin, channel)
