"""The host: entries are loaded on demand, shared, unloaded idle, and give their memory back."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from eftlocal.errors import RegistryError
from eftlocal.server.host import Host
from eftlocal.server.places import Waits
from eftlocal.server.settings import Served, Settings
from eftlocal.server.states import Closing, LoadFailed, Loading, Overloaded
from eftlocal.server.worker import Worker

from .conftest import Trio

RUNTIME = {"threads": 1, "ctx": 512, "parallel": 2}


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test on an event loop of its own."""
    asyncio.run(work)


def made(name: str, trio: Trio, ctx: int = 512) -> Served:
    """The trio under a name."""
    files = {"base": str(trio.base), "tuned": str(trio.tuned), "reference": str(trio.reference)}
    return Served(name, files=files, runtime={**RUNTIME, "ctx": ctx})


def host_of(
    trio: Trio, *names: str, waits: Waits | None = None, ctx: int = 512, **settings: Any
) -> Host:
    """A host that serves the trio under several names."""
    served = tuple(made(name, trio, ctx) for name in names)
    return Host(Settings(served=served, **settings), waits=waits)


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(0.01)


def with_host(host: Host, work: Callable[[Host], Awaitable[None]]) -> None:
    """Run a test with a host, and close that however it ends."""

    async def whole() -> None:
        try:
            await work(host)
        finally:
            await host.close(0)
        assert host.loaded() == {}

    run(whole())


async def ask(host: Host, name: str | None = None, **more: Any) -> Worker:
    """What a request does, in a task of its own."""
    return await asyncio.create_task(host.worker(name, **more))


def state(host: Host, name: str) -> str:
    """The state of an entry in one word."""
    return host.state(name).state


def long_request(worker: Worker) -> Any:
    """A request that goes on to the end of the context."""
    return worker.model.prepare_complete("Once upon a time", logit_bias={2: -1e6}, seed=1)


def test_an_entry_is_loaded_once_for_all_who_ask(trio: Trio) -> None:
    """Ten requests at once: one load, one worker."""

    async def work(host: Host) -> None:
        assert state(host, "a") == "unloaded"
        workers = await asyncio.gather(*(ask(host, "a", wait=True) for _ in range(10)))
        assert len({id(worker) for worker in workers}) == 1
        assert host.state("a").state == "loaded"
        assert host.state("a").loaded_at == pytest.approx(time.time(), abs=60)
        job = workers[0].submit(workers[0].model.prepare_complete("Hello", max_tokens=4))
        assert len((await job.result()).tokens) == 4

    with_host(host_of(trio, "a"), work)


def test_only_what_is_served_counts(trio: Trio, tmp_path: Path) -> None:
    """Names, aliases and Ollama's :latest are found; entries that are not served are not."""
    models = tmp_path / "models.toml"
    files = "\n".join(f'{role}.path = "{path}"' for role, path in trio._asdict().items())
    models.write_text(f'[models.mine]\naliases = ["short"]\n{files}\n', encoding="utf-8")
    served = (Served("mine", "mine", models=models), made("other", trio))

    async def work(host: Host) -> None:
        assert host.names() == ["mine", "other"]
        for name in (None, "mine", "short", "mine:latest", "short:latest"):
            assert host.find(name).name == "mine"
        for name in ("atlas", "", "mine:7b", "base.gguf"):
            if name != "base.gguf":
                with pytest.raises(RegistryError, match="entries: mine, other"):
                    await ask(host, name)
        assert host.find("base.gguf").name == "other"

    with_host(Host(Settings(served=served)), work)


def test_an_entry_that_does_not_exist_is_refused_at_once() -> None:
    """Before a server listens, not with its first request."""
    with pytest.raises(RegistryError, match="nonesuch"):
        Host(Settings(served=(Served("nonesuch", "nonesuch"),)))


def test_a_request_that_does_not_wait_is_told_when_to_come_back(trio: Trio) -> None:
    """Loading, with whole seconds; and the load goes on without it."""

    async def work(host: Host) -> None:
        with pytest.raises(Loading) as caught:
            await ask(host, "a")
        assert 1 <= caught.value.retry_after <= 600
        assert state(host, "a") == "loading"
        await until(lambda: state(host, "a") == "loaded")
        await ask(host, "a")

    with_host(host_of(trio, "a", waits=Waits(patience=0.0)), work)


def test_a_load_that_fails_is_reported_and_tried_again(trio: Trio, tmp_path: Path) -> None:
    """The sentence has no path; when the file is there, the entry works."""
    missing = Trio(tmp_path / "base.gguf", trio.tuned, trio.reference)

    async def work(host: Host) -> None:
        with pytest.raises(LoadFailed) as caught:
            await ask(host, "a", wait=True)
        assert "missing or damaged" in str(caught.value)
        assert str(tmp_path) not in str(caught.value)
        assert host.state("a").failure == str(caught.value)
        assert state(host, "a") == "failed"
        with pytest.raises(LoadFailed):  # known, without another load
            await ask(host, "a")
        (tmp_path / "base.gguf").write_bytes(trio.base.read_bytes())
        await asyncio.sleep(2.1)
        await ask(host, "a", wait=True)
        assert host.state("a").failure == ""

    with_host(
        Host(Settings(served=(made("a", missing),)), waits=Waits(retry_failed=2.0)),
        work,
    )


def test_entries_are_kept_side_by_side_where_they_fit(trio: Trio) -> None:
    """Nothing is unloaded as long as there is memory."""

    async def work(host: Host) -> None:
        for name in "abc":
            await ask(host, name, wait=True)
        assert list(host.loaded()) == ["a", "b", "c"]
        assert len({id(worker) for worker in host.loaded().values()}) == 3

    with_host(host_of(trio, "a", "b", "c"), work)


def test_the_least_recently_used_makes_room(trio: Trio) -> None:
    """At most two: the third pushes out the one that was not used for longest."""

    async def work(host: Host) -> None:
        for name in "aba":
            worker = await ask(host, name, wait=True)
            await worker.submit(worker.model.prepare_complete("Hi", max_tokens=1)).result()
        await ask(host, "c", wait=True)
        assert sorted(host.loaded()) == ["a", "c"]

    with_host(host_of(trio, "a", "b", "c", max_loaded=2), work)


def test_what_is_busy_is_not_unloaded(trio: Trio) -> None:
    """A request for another entry is refused while a job runs, or waits where it can wait."""

    async def work(host: Host) -> None:
        worker = await ask(host, "a", wait=True)
        job = worker.submit(long_request(worker))
        with pytest.raises(Overloaded) as caught:
            await ask(host, "b")
        assert caught.value.retry_after >= 1
        assert list(host.loaded()) == ["a"]
        waiting = asyncio.ensure_future(ask(host, "b", wait=True))
        assert len((await job.result()).tokens) > 100
        await waiting
        assert list(host.loaded()) == ["b"]

    with_host(host_of(trio, "a", "b", ctx=4096, max_loaded=1, waits=Waits(patience=1.0)), work)


def test_what_is_in_use_is_not_unloaded(trio: Trio) -> None:
    """A request that prepares its prompt has no job yet, and keeps its worker."""

    async def request(host: Host) -> None:
        worker = await host.worker("a", wait=True, keep_alive=0)
        await asyncio.sleep(0.5)
        await host.release("a")
        with pytest.raises(Overloaded):
            await ask(host, "b")
        await worker.submit(worker.model.prepare_complete("Hi", max_tokens=2)).result()

    async def work(host: Host) -> None:
        await asyncio.create_task(request(host))
        assert list(host.loaded()) == ["a"]
        await until(lambda: host.loaded() == {})

    with_host(host_of(trio, "a", "b", max_loaded=1, waits=Waits(patience=1.0)), work)


def test_idle_entries_are_unloaded_after_their_time(trio: Trio) -> None:
    """The settings' time; a request's own wins, until the next request."""

    async def work(host: Host) -> None:
        await ask(host, "a", wait=True)
        await until(lambda: state(host, "a") == "unloaded", 5)
        worker = await ask(host, "a", wait=True, keep_alive=-1)
        assert host.state("a").expires_at is None
        await worker.submit(worker.model.prepare_complete("Hi", max_tokens=2)).result()
        await asyncio.sleep(1.6)
        assert host.state("a").state == "loaded"
        await ask(host, "a", keep_alive=30)
        expires_at = host.state("a").expires_at
        assert expires_at is not None and 25 < expires_at - time.time() <= 30
        await ask(host, "a", keep_alive=0)
        await until(lambda: state(host, "a") == "unloaded")

    with_host(host_of(trio, "a", idle_timeout=0.3), work)


def test_a_running_job_keeps_its_entry(trio: Trio) -> None:
    """Idle time begins when the job ends."""

    async def work(host: Host) -> None:
        worker = await ask(host, "a", wait=True, keep_alive=0)
        completion = await worker.submit(long_request(worker)).result()
        assert completion.context_full
        await until(lambda: state(host, "a") == "unloaded")

    with_host(host_of(trio, "a"), work)


def test_release_unloads_what_is_idle_and_waits_for_what_is_not(trio: Trio) -> None:
    """What `eftlocal stop` does."""

    async def work(host: Host) -> None:
        await host.release("a")  # not loaded: nothing to do
        worker = await ask(host, "a", wait=True)
        job = worker.submit(long_request(worker))
        await host.release("a")
        assert state(host, "a") == "loaded"
        assert (await job.result()).finish_reason == "length"
        await until(lambda: state(host, "a") == "unloaded")

    with_host(host_of(trio, "a"), work)


def test_closing_ends_jobs_and_loads(trio: Trio) -> None:
    """A running job hears that the server ends; later requests, too."""

    async def work(host: Host) -> None:
        worker = await ask(host, "a", wait=True)
        job = worker.submit(long_request(worker))
        host.preload("b")
        await host.close(0)
        with pytest.raises(Closing):
            await job.result()
        for name in "ab":
            with pytest.raises(Closing):
                await ask(host, name, wait=True)
        assert {state(host, name) for name in "ab"} == {"unloaded"}

    with_host(host_of(trio, "a", "b"), work)


def anonymous_memory() -> int:
    """Bytes of this process's own memory: no mapped files."""
    gc.collect()
    # What glibc keeps of freed memory would come and go meanwhile.
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def used_by_loads() -> list[int]:
    """Bytes of memory after each of 26 times that atlas was loaded, used and unloaded."""
    served = Served("atlas", "atlas", runtime={"threads": 1, "parallel": 2})
    used: list[int] = []

    async def work(host: Host) -> None:
        for _ in range(26):
            worker = await ask(host, "atlas", wait=True)
            await worker.submit(worker.model.prepare_complete("Hello", max_tokens=4)).result()
            del worker
            await host.release()
            await until(lambda: not host.loaded())
            used.append(anonymous_memory())

    with_host(Host(Settings(served=(served,))), work)
    return used


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs /proc and glibc")
def test_unloading_gives_the_memory_back() -> None:
    """Twenty times atlas: what one load takes is taken once."""
    # In a process of its own: in this one, what other tests have left moves about meanwhile.
    code = f"import json; from {__name__} import used_by_loads; print(json.dumps(used_by_loads()))"
    command = [sys.executable, "-c", code]
    env = {**os.environ, "MALLOC_ARENA_MAX": "2"}
    root = Path(__file__).parents[1]
    used: list[int] = json.loads(subprocess.check_output(command, cwd=root, env=env))
    # A leak of a twentieth of what atlas takes would be 30 MB.
    assert min(used[-5:]) - min(used[1:6]) < 8 << 20


def test_what_was_loaded_waits_for_who_was_told_to_try_again(trio: Trio) -> None:
    """Also after a keep_alive of 0, which was for the request before; and `stop` still ends it."""

    async def work(host: Host) -> None:
        await ask(host, "a", wait=True, keep_alive=0)
        await until(lambda: state(host, "a") == "unloaded")
        with pytest.raises(Loading):
            await ask(host, "a")
        await until(lambda: state(host, "a") == "loaded")
        await asyncio.sleep(0.5)
        await ask(host, "a")
        await until(lambda: state(host, "a") == "unloaded", 5)
        host.preload("a")
        await until(lambda: state(host, "a") == "loaded")
        await host.release("a")
        await until(lambda: state(host, "a") == "unloaded", 5)

    with_host(host_of(trio, "a", waits=Waits(patience=0.0), idle_timeout=0.3), work)
