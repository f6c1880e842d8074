"""A stand-in for the Hugging Face hub: the HTTP that huggingface_hub speaks, on this machine.

Two servers run in threads: the hub, which describes repositories and redirects those who want the
contents of large files, and the storage behind it, which sends them and knows byte ranges. Both can
be told to fail.
"""

from __future__ import annotations

import json
import math
import re
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from .hub_data import GOOD_TOKEN, Fault, Repository, Seen, git_sha1, sha256, sibling

PIECE = 16 << 10


class HubServer:
    """The stand-in; use as a context manager.

    Attributes:
        repositories: "user/name" -> repository.
        faults: tried in order.
        rate: bytes per second of one connection, 0 for as fast as it goes.
        limit: bytes in all that are sent before everything waits for it to be raised.
        ranges: whether the storage knows byte ranges.
        seen: all requests.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.rate = 0.0
        self.limit = math.inf
        self.ranges = True
        self.seen: list[Seen] = []
        self.closing, self._lock = threading.Event(), threading.Lock()
        self._servers = [_Server(self, "hub"), _Server(self, "storage")]

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def storage_url(self) -> str:
        """Another host, as with the real one, so that tokens must not go there."""
        return f"http://localhost:{self._servers[1].server_address[1]}"

    def add(self, name: str, files: dict[str, bytes], **more: Any) -> Repository:
        """Publish a repository."""
        self.repositories[name] = Repository(files, **more)
        return self.repositories[name]

    def sent(self, name: str = "") -> int:
        """Bytes of file contents that left, of one repository's file or of all."""
        digest = ""
        if name:
            user, repository, file = name.split("/", 2)
            digest = sha256(self.repositories[f"{user}/{repository}"].files[file])
        return sum(item.sent for item in self.seen if item.at == "storage" and digest in item.path)

    def take_fault(self, at: str, path: str) -> Fault | None:
        """The first fault that fits a request, once less from now on."""
        with self._lock:
            for fault in self.faults:
                if fault.at == at and fault.match in path and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def __enter__(self) -> HubServer:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, hub: HubServer, kind: str) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler if kind == "hub" else _StorageHandler)
        self.hub = hub

    def handle_error(self, *_: Any) -> None:
        """Clients that are killed in the middle of a request are what this is for."""


class _Answered(Exception):
    """The request has its answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def note(self, at: str) -> Seen:
        """Keep what was asked."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        seen = Seen(at, self.command, self.path, self.headers.get("Range"), token)
        self.server.hub.seen.append(seen)
        return seen

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a short answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fails(self, at: str) -> Fault | None:
        """Answer as a fault says; returns one that shows up later, in the contents."""
        fault = self.server.hub.take_fault(at, self.path)
        if fault is not None and (fault.status or fault.body is not None):
            self.answer(fault.status or 200, fault.body or b"no", **fault.headers)
            raise _Answered
        return fault

    def do_GET(self) -> None:
        """Answer, once."""
        try:
            with suppress(_Answered):
                self.handle_path()
        except ConnectionError:
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815

    def handle_path(self) -> None:
        """Find out what is asked for, and answer it."""
        raise NotImplementedError


class _HubHandler(_Handler):
    def handle_path(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._describe(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], found[2], found[3])
        else:
            self.answer(404)

    def _describe(self, name: str, revision: str) -> None:
        seen = self.note("api")
        self.fails("api")
        repository = self._repository(name, revision, seen)
        siblings = [
            sibling(file, repository.claimed.get(file, len(data)), data, file in repository.small)
            for file, data in sorted(repository.files.items())
        ]
        body: dict[str, Any] = {
            "_id": "1",
            "id": name,
            "modelId": name,
            "sha": repository.commit,
            "tags": [],
        }
        body |= {"private": repository.private, "gated": repository.gated, "siblings": siblings}
        self.answer(200, json.dumps(body).encode(), Content_Type="application/json")

    def _resolve(self, name: str, revision: str, file: str) -> None:
        seen = self.note("resolve")
        self.fails("resolve")
        repository = self._repository(name, revision, seen)
        if repository.gated and seen.token != GOOD_TOKEN:
            status = 403 if seen.token else 401
            self.answer(status, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted.")
            return
        data = repository.files.get(file)
        if data is None:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=repository.commit)
        elif file in repository.small:
            self.answer(200, data, ETag=f'"{git_sha1(data)}"', X_Repo_Commit=repository.commit)
        else:
            xet = {"X_Xet_Hash": sha256(data), "X_Xet_Refresh_Route": "/api/none"}
            self.answer(
                302,
                b"",
                **(xet if repository.xet else {}),
                Location=f"{self.server.hub.storage_url}/{name}/{sha256(data)}?Signature=x",
                X_Repo_Commit=repository.commit,
                X_Linked_Size=str(len(data)),
                X_Linked_Etag=f'"{sha256(data)}"',
            )

    def _repository(self, name: str, revision: str, seen: Seen) -> Repository:
        if seen.token not in (None, GOOD_TOKEN):
            said = "Invalid credentials in Authorization header"
            self.answer(401, X_Error_Message=said)
            raise _Answered
        repository = self.server.hub.repositories.get(name)
        if repository is None or (repository.private and seen.token is None):
            status = 404 if seen.token else 401
            self.answer(status, X_Error_Code="RepoNotFound", X_Error_Message="Not found")
            raise _Answered
        if revision not in ("main", repository.commit):
            self.answer(404, X_Error_Code="RevisionNotFound")
            raise _Answered
        return repository


class _StorageHandler(_Handler):
    def setup(self) -> None:
        """Keep little back: what is counted as sent should have left."""
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        super().setup()

    def handle_path(self) -> None:
        hub = self.server.hub
        seen = self.note("storage")
        if seen.token is not None:
            # As storage does that is asked with a signed address and a token.
            self.answer(400, b"only one auth mechanism allowed")
            return
        fault = self.fails("storage")
        name, digest = urlsplit(self.path).path[1:].rsplit("/", 1)
        data = next(
            item for item in hub.repositories[name].files.values() if sha256(item) == digest
        )
        start, end = 0, len(data)
        if hub.ranges and (found := re.fullmatch(r"bytes=(\d+)-(\d*)", seen.range or "")):
            start, end = int(found[1]), min(int(found[2] or end) + 1, end)
            if start >= len(data):
                self.answer(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        data = data[start:end]
        if fault and fault.flip:
            data = bytes([data[0] ^ 1]) + data[1:]
        self._send(data, seen, fault or Fault("storage"))

    def _send(self, data: bytes, seen: Seen, fault: Fault) -> None:
        hub = self.server.hub
        started = time.monotonic()
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            if fault.cut_after is not None and at + len(piece) > fault.cut_after:
                self.close_connection = True
                return
            if fault.stall_after is not None and at + len(piece) > fault.stall_after:
                hub.closing.wait()
                return
            while hub.sent() + len(piece) > hub.limit:
                if hub.closing.wait(0.005):
                    return
            self.wfile.write(piece)
            seen.sent += len(piece)
            ahead = seen.sent / hub.rate - (time.monotonic() - started) if hub.rate else 0.0
            if ahead > 0 and hub.closing.wait(ahead):
                return
