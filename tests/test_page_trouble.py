"""When things go wrong: the page says what is the matter, keeps what it has, and goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

import eftlocal
from eftlocal.server.places import Waits
from eftlocal.server.settings import Served

from .browser import Open, Tab, expect, expect_text
from .full_server import ATLAS, CHAT, ENDLESS, RUNTIME, Running, serve
from .full_server import FRANCE as ASKED
from .serve_process import serving

GOLD = "What is the chemical symbol of gold?"
ONE = replace(ATLAS, runtime={**RUNTIME, "parallel": 1})


@dataclass(frozen=True, slots=True)
class Slow(Served):
    """A model whose load stands still at a quarter until `go` is set."""

    go: threading.Event = field(default_factory=threading.Event)

    def load(
        self, progress: Callable[[float], None] | None = None, verbose: bool = False
    ) -> eftlocal.FusedModel:
        """Load it when it may go on; an end that is asked for is noticed meanwhile."""
        while not self.go.wait(0.02):
            if progress is not None:
                progress(0.25)
        return Served.load(self, progress, verbose)


def slow(name: str) -> Slow:
    """Atlas, under a name, loaded slowly."""
    return Slow(name, entry="atlas", runtime=RUNTIME)


@contextmanager
def busy(server: Running) -> Iterator[None]:
    """A request of somebody else takes the one sequence of a server until the block ends."""
    body = {"messages": ASKED, "stream": True, **ENDLESS}
    with (
        httpx.Client(base_url=server.url, timeout=60) as client,
        client.stream("POST", CHAT, json=body) as response,
    ):
        assert response.status_code == 200
        server.until_jobs(1, 0)
        yield
    server.until_jobs(0, 0)


def test_a_restart_in_the_middle_is_survived(tmp_path: Path, tabs: Open) -> None:
    """What had come is kept; the page says so, and works again without a hand laid on it."""
    with serving(tmp_path) as server:
        url = server.url
        tab = tabs(url)
        tab.may_fail()
        tab.expected.append("net::ERR")
        tab.ask()
        tab.alter(**ENDLESS)
        tab.send(GOLD)
        answer = tab.answers.last
        tokens = answer.locator(".token")
        expect(tokens.nth(20)).to_be_visible()
        server.process.kill()
        server.process.wait()
        tab.is_done()
        expect_text(answer, "connection was lost.*kept")
        assert tokens.count() > 20
        expect_text(tab.status, "does not answer.*[Tt]rying again")
    kept = tab.turns.all_inner_texts()
    with serving(tmp_path, "--port", url.rpartition(":")[2]) as again:
        assert again.url == url
        expect_text(tab.status, "Ready")
        assert tab.turns.all_inner_texts() == kept
        tab.alter()
        tab.button("Answer again", tab.turns.last).click()
        tab.is_done()
        expect(tab.answers.last).to_contain_text("Au")
        # What was cut off is still there.
        tab.button("Previous", tab.turns.last).click()
        expect_text(tab.answers.last, "connection was lost")
        tab.page.reload()
        tab.is_ready()
        expect_text(tab.answers.last, "connection was lost")


def test_the_end_of_a_server_and_the_next_one(tmp_path: Path, tabs: Open) -> None:
    """A last event cuts the answer off; the next question waits until somebody answers."""
    with serving(tmp_path, "--grace", "0.1") as server:
        url = server.url
        tab = tabs(url)
        tab.may_fail()
        tab.alter(**ENDLESS)
        tab.send()
        expect(tab.tokens.nth(20)).to_be_visible()
        assert server.terminate() == 0
        tab.is_done()
        expect_text(tab.answers, "kept")
        assert tab.tokens.count() > 20
    tab.alter()
    tab.send(GOLD)
    expect_text(tab.status, "does not answer.*[Tt]rying again")
    tab.button("Stop").click()
    tab.is_done()
    expect(tab.answers.last).to_contain_text("Stopped.")
    tab.send(GOLD)
    expect_text(tab.status, "does not answer.*[Tt]rying again")
    with serving(tmp_path, "--port", url.rpartition(":")[2]):
        expect(tab.answers.last).to_contain_text("Au")
        tab.is_done()
        expect_text(tab.status, "Ready")


def test_loading_is_told_with_its_progress(tabs: Open) -> None:
    """A question that comes too early waits; nobody has to ask it again."""
    model = slow("atlas")
    with serve(model, load=False, waits=Waits(patience=0.0)) as server:
        try:
            tab = tabs(server.url)
            tab.may_fail()
            tab.send()
            expect_text(tab.status, "[Ll]oading.*25 ?%")
            expect(tab.answers).to_have_attribute("aria-busy", "true")
            model.go.set()
            expect(tab.answers).to_contain_text("Paris")
            tab.is_done()
            expect_text(tab.status, "Ready")
            assert len(tab.turns.all()) == 1
        finally:
            model.go.set()


def test_a_page_that_is_opened_while_a_model_is_loaded(tabs: Open) -> None:
    """Says how far that is, and when it is done."""
    model = slow("atlas")
    with serve(model, load=False) as server:
        try:

            async def begin() -> None:
                server.host.preload()

            server.do(begin())
            tab = tabs(server.url)
            expect_text(tab.status, "[Ll]oading.*25 ?%")
            model.go.set()
            expect_text(tab.status, "Ready")
        finally:
            model.go.set()


def test_another_model_is_loaded_for_the_next_question(tabs: Open) -> None:
    """Chosen in the settings; its progress is told as well."""
    other = slow("other")
    with serve(ATLAS, other, waits=Waits(patience=0.0)) as server:
        try:
            tab = tabs(server.url)
            tab.may_fail()
            tab.page.get_by_role("combobox", name="Model").select_option("other")
            tab.send()
            expect_text(tab.status, "[Ll]oading other.*25 ?%")
            tab.button("Stop").click()
            tab.is_done()
            other.go.set()
            server.until(lambda: "other" in server.host.loaded())
            expect(tab.ask()).to_contain_text("Paris")
        finally:
            other.go.set()


def test_a_busy_server_is_waited_for(tabs: Open) -> None:
    """First in its queue; where that is full, by asking again."""
    with serve(ONE, queue=1) as server:
        tab = tabs(server.url)
        with busy(server):
            tab.send()
            expect_text(tab.status, "busy.*waits for its turn")
        expect(tab.answers).to_contain_text("Paris")
        tab.is_done()
    with serve(ONE, queue=0) as server:
        tab = tabs(server.url)
        tab.may_fail()
        with busy(server):
            tab.send()
            expect_text(tab.status, "(busy|queue|requests).*[Tt]rying again")
        expect(tab.answers).to_contain_text("Paris")
        tab.is_done()


def test_a_key_is_asked_for(tabs: Open) -> None:
    """In a dialog, until it is right; it is kept for the tab and in no address."""
    with serve(ATLAS, keys=("the-right-key",)) as server:
        tab = tabs(server.url, ready=False)
        tab.may_fail()
        dialog = tab.page.get_by_role("dialog", name="API key")
        expect(dialog).to_be_visible()
        expect_text(tab.status, "API key")
        field = dialog.get_by_label("Key", exact=True)
        expect(field).to_have_attribute("type", "password")
        field.fill("a-wrong-key")
        field.press("Enter")
        expect(dialog).to_contain_text("not valid")
        expect(field).to_be_visible()
        field.fill("the-right-key")
        dialog.get_by_role("button").first.click()
        expect(dialog).to_be_hidden()
        tab.is_ready()
        expect(tab.ask()).to_contain_text("Paris")
        tab.page.reload()
        tab.is_ready()
        expect(tab.ask(GOLD)).to_contain_text("Au")
        assert tab.page.url == f"{server.url}/"
        # What is written to a file is no place for keys.
        assert "the-right-key" not in str(tab.export())
        assert "the-right-key" not in tab.page.evaluate("JSON.stringify(localStorage)")
        other = tabs(server.url, ready=False)
        other.may_fail()
        expect(other.page.get_by_role("dialog", name="API key")).to_be_visible()


def test_draining_is_told(tabs: Open) -> None:
    """A server that ends refuses new questions; the page waits for the next one."""
    with serve(ATLAS) as server:
        tab = tabs(server.url)
        tab.may_fail()
        server.loop.call_soon_threadsafe(server.host.drain)
        server.until(lambda: server.host.is_closing)
        tab.send()
        expect_text(tab.status, "(ending|shutting|closing|restart|stop).*[Tt]rying again")
        tab.button("Stop").click()
        tab.is_done()


def test_nothing_is_asked_when_nothing_happens(tab: Tab) -> None:
    """A page that is left open does not keep a server busy."""
    tab.page.clock.install()
    tab.page.reload()
    tab.is_ready()
    tab.send()
    while tab.button("Stop").is_visible():
        tab.page.clock.run_for(100)
    expect(tab.answers).to_contain_text("Paris")
    tab.page.clock.run_for(5_000)
    requests: list[str] = []
    tab.page.on("request", lambda request: requests.append(request.url))
    tab.page.clock.run_for(600_000)
    assert requests == []
