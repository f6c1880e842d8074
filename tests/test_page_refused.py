"""What is refused for good: the page says why, and goes on."""

from __future__ import annotations

from pathlib import Path

from .browser import Open, Tab, expect, expect_text
from .conftest import Trio
from .full_server import ATLAS, Running, made, serve

GOLD = "What is the chemical symbol of gold?"


def test_a_model_that_cannot_be_loaded(trio: Trio, tmp_path: Path, tabs: Open) -> None:
    """The answer says why, and others work as before."""
    broken = made("broken", Trio(tmp_path / "none.gguf", trio.tuned, trio.reference))
    with serve(ATLAS, broken) as server:
        tab = tabs(server.url)
        tab.may_fail()
        tab.page.get_by_role("combobox", name="Model").select_option("broken")
        tab.ask()
        expect_text(tab.answers, "(missing or damaged|cannot be loaded)")
        expect(tab.button("Answer again")).to_be_visible()
        expect_text(tab.status, "broken.*(cannot be loaded|missing)")
        tab.page.reload()
        tab.is_ready()
        expect_text(tab.status, "broken.*(cannot be loaded|missing)")
        tab.page.get_by_role("combobox", name="Model").select_option("atlas")
        expect_text(tab.status, "Ready.*atlas")
        tab.button("Answer again with these settings").click()
        tab.is_done()
        expect(tab.answers.last).to_contain_text("Paris")


def test_an_entry_that_is_gone(tab: Tab) -> None:
    """The page takes the server's first one."""
    tab.may_fail()
    tab.page.evaluate("localStorage.setItem('eftlocal.model', 'no-such-model')")
    tab.page.reload()
    tab.is_ready()
    expect(tab.page.get_by_role("combobox", name="Model")).to_have_value("atlas")
    expect(tab.ask()).to_contain_text("Paris")


def test_the_context_is_full(tab: Tab) -> None:
    """The server's own words, below the answer that did not come, and in a long answer's end."""
    tab.may_fail()
    answer = tab.ask("word " * 3000)
    expect_text(answer, "context")
    expect(answer).not_to_have_attribute("aria-busy", "true")
    assert len(tab.bodies) == 1
    # Without it the conversation goes on.
    tab.starts_anew()
    tab.alter(max_tokens=5)
    answer = tab.ask()
    expect_text(answer, "number of tokens")


def test_wrong_requests_are_not_sent_again(tab: Tab) -> None:
    """What the server will never take is told at once."""
    tab.may_fail()
    tab.alter(temperature=-5)
    answer = tab.ask()
    expect_text(answer, "[Tt]emperature = -5")
    assert len(tab.bodies) == 1
    tab.alter()
    tab.button("Answer again").click()
    tab.is_done()
    expect(tab.answers.last).to_contain_text("Paris")


NO_ANSWERS = (
    (502, "text/html", "<h1>Bad gateway</h1>", "502"),
    (500, "application/json", '{"error": {"message": ""}}', ""),
    (400, "application/json", '{"error": "words"}', "400"),
    (200, "text/event-stream", "", "connection was lost"),
    (200, "text/event-stream", "data: {broken\n\n", ""),
    (200, "text/event-stream", 'data: {"error": {"message": "it broke"}}\n\n', "[Ii]t broke"),
    (200, "text/event-stream", "data: {}\n\ndata: [DONE]\n\n", ""),
    (200, "text/event-stream", 'data: {"choices": [{}]}\n\ndata: [DONE]\n\n', ""),
)


def test_answers_that_are_no_answers(tab: Tab) -> None:
    """A proxy's page, broken JSON, an empty stream: an end with words, not a page that hangs."""
    tab.may_fail()
    for status, kind, body, words in NO_ANSWERS:
        tab.fulfil(body, status, kind)
        tab.send()
        if words != "connection was lost":
            tab.is_done()
        expect_text(tab.page.locator("body"), words or "[a-z]")
        if tab.button("Stop").is_visible():
            tab.button("Stop").click()
        tab.is_done()
    tab.alter()
    tab.starts_anew()
    expect(tab.ask()).to_contain_text("Paris")


def test_a_browser_without_storage(server: Running, tabs: Open) -> None:
    """Private windows of some browsers keep nothing: the page says so, and works."""
    tab = tabs(server.url, ready=False)
    tab.context.add_init_script("delete IDBFactory.prototype.open")
    tab.page.reload()
    tab.is_ready()
    expect(tab.ask()).to_contain_text("Paris")
    expect_text(tab.status, "cannot keep")
    expect(tab.ask(GOLD)).to_contain_text("Au")
    assert len(tab.bodies[1]["messages"]) == 3
