"""/health, /props and /slots: true, without contents and paths."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import httpx

import eftlocal
from eftlocal.server.places import Waits

from .conftest import Trio
from .full_server import ATLAS, Running, made, serve


def test_health_follows_the_models(trio: Trio, tmp_path: Path) -> None:
    """Well without a model; loading while it is loaded for the first time; failed; draining."""
    missing = made("missing", Trio(tmp_path / "none.gguf", trio.tuned, trio.reference))
    with serve(missing, ATLAS, load=False, waits=Waits(patience=0.0)) as server:
        assert server.get("/health") == {"status": "ok"}
        answer = server.client.get("/v1/models/missing/nothing")
        assert answer.status_code == 404
        server.post("/tokenize", 503, prompt="a", model="missing")
        server.until(lambda: server.client.get("/health").json() != {"status": "loading"})
        assert server.get("/health", 503) == {"status": "failed"}
        props = server.get("/props?model=missing")
        assert props["state"] == "failed"
        assert "a file of it is missing or damaged" in props["failure"]
        assert str(tmp_path) not in props["failure"]
        assert server.client.get("/health").headers["retry-after"] == "1"
        server.load("atlas")
        assert server.get("/health") == {"status": "ok"}
        server.loop.call_soon_threadsafe(server.host.drain)
        server.until(lambda: server.host.is_closing)
        assert server.get("/health", 503) == {"status": "draining"}


def test_health_says_that_a_model_is_being_loaded(trio: Trio) -> None:
    """While nothing else can answer."""
    with serve(made("a", trio), load=False, waits=Waits(patience=0.0)) as server:

        async def look() -> list[str]:
            server.host.preload()
            await asyncio.sleep(0)
            return [state.state for state in server.host.states()]

        assert server.do(look()) == ["loading"]
        refused = server.client.post("/tokenize", json={"prompt": "a"})
        assert refused.status_code in (200, 503)
        server.until(lambda: server.client.get("/health").status_code == 200)


def test_props_tell_how_the_model_generates(server: Running) -> None:
    """The same with the model loaded and without; options under their names outside Python."""
    server.do(server.host.release())
    server.until(lambda: not server.host.loaded())
    unloaded = server.get("/props")
    assert server.host.loaded() == {}
    server.load()
    props = server.get("/props?model=atlas:latest")
    assert props["is_sleeping"] is False
    assert unloaded["is_sleeping"] is True
    assert (unloaded["state"], unloaded["progress"]) == ("unloaded", 0.0)
    assert (props["state"], props["progress"], props["failure"]) == ("loaded", 1.0, None)
    assert props["n_ctx"] == props["default_generation_settings"]["n_ctx"] == 1024
    assert props["total_slots"] == unloaded["total_slots"] == 2
    params = props["default_generation_settings"]["params"]
    assert params == unloaded["default_generation_settings"]["params"]
    assert params["alpha"] == "dynamic"
    assert params["lambda"] is None
    assert "<|assistant|>" in props["chat_template"]
    assert props["model"] == "atlas"
    assert props["files"]["base"]["parameters"] > props["files"]["tuned"]["parameters"]
    folder = str(Path(eftlocal.__file__).parent)
    assert folder not in str(props)
    assert "/" not in props["files"]["base"]["name"]
    server.get("/props?model=nothing", 404)


def test_slots_show_what_runs_and_no_text(server: Running) -> None:
    """Idle, then generating, then idle again with a cache that is kept."""
    server.load()
    secret = "xylophone"
    done = threading.Event()

    def ask() -> None:
        body = {"prompt": secret, "logit_bias": {"2": -100, "6": -100}, "model": "atlas"}
        with httpx.Client(base_url=server.url, timeout=60) as client:
            client.post("/v1/completions", json=body)
        done.set()

    thread = threading.Thread(target=ask)
    thread.start()
    seen = []
    while not done.is_set():
        seen += server.get("/slots")
    thread.join()
    busy = [slot for slot in seen if slot["is_processing"]]
    assert busy
    assert {slot["state"] for slot in busy} <= {"prompt", "generating"}
    assert any(slot["generated_tokens"] > 0 for slot in busy)
    assert secret not in str(seen)
    after = server.get("/slots")
    assert [slot["id"] for slot in after] == [0, 1]
    assert {slot["state"] for slot in after} == {"idle"}
    assert any(slot["held_tokens"] for slot in after)
