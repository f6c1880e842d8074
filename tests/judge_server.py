"""A judge behind a real HTTP port whose verdicts are a function of what it is sent.

And runs of `eftlocal eval judge` in which it judges six replies in one role.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .cli_helpers import run

Json = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """A request, as a judge would read it.

    Attributes:
        body: its JSON.
        headers: its headers, names in lower case.
        number: how many came before it.
    """

    body: Json
    headers: dict[str, str]
    number: int

    @property
    def system(self) -> str:
        """What the judge is told to do."""
        return str(self.body["messages"][0]["content"])

    @property
    def user(self) -> str:
        """The texts between marks."""
        return str(self.body["messages"][1]["content"])

    @property
    def is_pair(self) -> bool:
        """Whether two replies are compared."""
        return "two assistants" in self.system

    @property
    def role(self) -> str:
        """The role, from the words of its task alone."""
        words = {"satisf": "helpfulness", "wrong": "factuality", "harm": "harmlessness"}
        return next(name for word, name in words.items() if word in self.system)

    def part(self, name: str) -> str:
        """The text of a part; "" where there is none."""
        found = re.search(rf"^(#\w+) {name}: begin\n(.*?)\n\1 {name}: end$", self.user, _ALL)
        return found[2] if found else ""

    @property
    def reply(self) -> str:
        """The reply that is judged alone."""
        return self.part("last reply")


_ALL = re.MULTILINE | re.DOTALL
Answer = str | Json | tuple[int, Json | str] | tuple[int, Json | str, dict[str, str]]
Script = Callable[[Seen], Answer]
"""Makes of a request: the message's content, an object for it, or status, body and headers."""


@dataclass
class JudgeServer:
    """A server that runs.

    Attributes:
        url: of the API.
        seen: all requests so far.
    """

    url: str
    seen: list[Seen] = field(default_factory=list)
    most_at_once: int = 0

    def options(self, model: str = "scripted", name: str = "judge") -> list[str]:
        """The options that name it."""
        return [f"--{name}", self.url, f"--{name}-model", model]


def number(cell: Any) -> float:
    """The number in a cell of a table, whether it has an interval or not."""
    return float(cell["value"] if isinstance(cell, dict) else cell)


def verdict(value: object, reason: str = "because") -> Json:
    """What a judge answers."""
    return {"reason": reason, "verdict": value}


@contextmanager
def judging(script: Script) -> Iterator[JudgeServer]:
    """Serve a script until the block ends."""
    lock = threading.Lock()
    busy = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            nonlocal busy
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen = Seen(body, headers, len(running.seen))
                running.seen.append(seen)
                busy += 1
                running.most_at_once = max(running.most_at_once, busy)
            try:
                # As a proxy it is told the whole URL.
                right = self.path.endswith("/v1/chat/completions")
                self._answer(script(seen) if right else (404, {"error": {"message": "no route"}}))
            finally:
                with lock:
                    busy -= 1

        def _answer(self, answer: Answer) -> None:
            status, content, more = 200, answer, dict[str, str]()
            if isinstance(answer, tuple):
                status, content, *rest = answer
                more = rest[0] if rest else {}
            else:
                text = answer if isinstance(answer, str) else json.dumps(answer)
                content = completion(text)
            data = (content if isinstance(content, str) else json.dumps(content)).encode()
            kind = "text/html" if isinstance(content, str) else "application/json"
            try:
                self.send_response(status)
                for name, value in {"Content-Type": kind, **more}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                # Who asked has gone, as tests of stopping want it.
                self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        running = JudgeServer(f"http://127.0.0.1:{server.server_port}/v1")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield running
        finally:
            server.shutdown()
            thread.join()


def completion(text: str | None) -> Json:
    """A chat completion with this text."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "scripted",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }


def refusal(status: int, message: str, **more: Any) -> tuple[int, Json]:
    """An error in OpenAI's form."""
    return status, {"error": {"message": message, "type": "error", "param": None, **more}}


QUESTIONS = ("France", "Peru", "Chile", "Kenya", "Japan", "Norway")


def six_questions(folder: Path) -> list[str]:
    """The options of a run: six questions, one role."""
    path = folder / "prompts.jsonl"
    lines = [json.dumps({"prompt": f"What is the capital of {name}?"}) for name in QUESTIONS]
    path.write_text("\n".join(lines))
    options = ["eval", "judge", "--prompts", str(path), "--cache", str(folder / "cache")]
    return [*options, "--threads", "1", "--max-tokens", "40", "--roles", "factuality"]


def good(seen: Seen) -> Json:
    """A verdict that every question gets."""
    return verdict(2)


def judged(*args: str) -> Json:
    """The section of a run that ends well."""
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    found: Json = json.loads(result.stdout)
    return found


def mean(section: Json) -> float:
    """The fused model's score."""
    return number(section["tables"][0]["rows"][0]["factuality"])


def counts(section: Json) -> tuple[float, float]:
    """How many questions have no verdict, and how many of them were refused."""
    row = section["tables"][-1]["rows"][0]
    return row["no_verdict"], row["refused"]
