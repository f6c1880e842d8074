"""How tests run `eftlocal generate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .cli_helpers import run

CHILE = "What is the capital of Chile?"
THREADS = ("--threads", "1")


def chat(text: str, **more: Any) -> dict[str, Any]:
    """A line with a question."""
    return {"messages": [{"role": "user", "content": text}], **more}


def write(path: Path, lines: list[Any]) -> Path:
    """Write objects as JSON, and bytes as they are."""
    data = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"".join(line + b"\n" for line in data))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """All lines of an output."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def generate(source: Path, output: Path | str, *more: str, code: int = 0) -> str:
    """Run the command with its exit code checked; what it said on stderr."""
    result = run("generate", "-i", str(source), "-o", str(output), *THREADS, *more)
    assert result.exit_code == code, result.output
    return result.stderr
