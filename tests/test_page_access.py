"""The page for everybody: what axe finds, narrow screens, light and dark, no movement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import get_args

import pytest
from playwright.sync_api import Page

from eftlocal.server.settings import Served

from .browser import PHONE, SCREEN, Open, Scheme, Tab, expect, expect_text
from .full_server import ATLAS, ENDLESS, RUNTIME, Running, serve

GOLD = "What is the chemical symbol of gold?"
MARKDOWN = """# A title

Some *words*, a [link](https://a.example), `code` and a very-long-word-""" + "x" * 300 + """

- one
- two

| a | b | c | d | e | f | g |
|---|---|---|---|---|---|---|
| """ + "wide words | " * 7 + """

```py
print("a long line of code that does not fit on the screen of a phone, by far: it scrolls")
```

> quoted
"""  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """Atlas, and the same with several experts."""
    experts = Served("atlas-experts", entry="atlas-experts", runtime=RUNTIME)
    with serve(ATLAS, experts) as running:
        running.load("atlas-experts")
        yield running


def empty(tab: Tab) -> None:
    """Nothing was asked."""


def streaming(tab: Tab) -> None:
    """An answer comes."""
    tab.alter(**ENDLESS)
    tab.send()
    expect(tab.tokens.nth(10)).to_be_visible()


def tokens(tab: Tab) -> None:
    """Tokens by who decided, with the card of one."""
    tab.ask()
    tab.page.get_by_role("radio", name="who decided").check()
    tab.open_card(5)


def alphas(tab: Tab) -> None:
    """Tokens by alpha."""
    tab.ask()
    tab.page.get_by_role("radio", name="alpha", exact=True).check()


def side_by_side(tab: Tab) -> None:
    """All parts in columns, and their differences."""
    tab.ask()
    tab.button("Compare with its parts").click()
    tab.is_done()
    expect(tab.answers).to_have_count(3)


def markdown(tab: Tab) -> None:
    """A rendered answer with all kinds of blocks, a reasoning block open."""
    tab.answer_with({"reasoning_content": "Let me think."}, MARKDOWN)
    answer = tab.ask()
    tab.shows_tokens(False)
    answer.get_by_text("Reasoning").click()


def settings(tab: Tab) -> None:
    """The panel of settings, several experts, a field that is wrong."""
    tab.shows("Settings")
    tab.page.get_by_role("combobox", name="Model").select_option("atlas-experts")
    expect(tab.page.get_by_role("spinbutton", name="Weight of ").first).to_be_visible()
    tab.page.get_by_role("spinbutton", name="Temperature").fill("-1")


def conversations(tab: Tab) -> None:
    """The panel of conversations, and a question that is edited."""
    tab.ask()
    tab.button("Edit").click()
    tab.shows("Conversations")


def refused(tab: Tab) -> None:
    """An answer that did not come."""
    tab.may_fail()
    tab.fulfil('{"error": {"message": "the context is full"}}', 400, "application/json")
    tab.ask()
    expect_text(tab.answers, "context is full")


def key(tab: Tab) -> None:
    """The dialog that asks for a key."""
    tab.may_fail()
    tab.page.route("**/props*", lambda route: route.fulfill(status=401, json={"error": {
        "message": "the API key is missing"}}))  # fmt: skip
    tab.page.reload()
    expect(tab.page.get_by_role("dialog", name="API key")).to_be_visible()


def gone(tab: Tab) -> None:
    """A server that does not answer."""
    tab.expected.append("net::ERR|Failed to load")
    tab.page.route("**/v1/*", lambda route: route.abort())
    tab.page.route("**/v1/chat/completions", lambda route: route.abort())
    tab.send()
    expect_text(tab.status, "does not answer")


STATES: tuple[Callable[[Tab], None], ...] = (
    empty, streaming, tokens, alphas, side_by_side, markdown, settings, conversations, refused,
    key, gone,
)  # fmt: skip


def fits(page: Page) -> bool:
    """Whether the page cannot be scrolled sideways, and nothing of the answers is cut off."""
    found: bool = page.evaluate("""() => {
      const box = document.scrollingElement;
      box.scrollLeft = 50;
      const conversation = document.querySelector("[aria-label=Conversation]");
      conversation.scrollLeft = 50;
      const scrolls = (one) => /auto|scroll/.test(getComputedStyle(one).overflowX);
      const isCut = (one) => {
        if (one.getBoundingClientRect().right <= innerWidth + 1) return false;
        for (; one !== conversation; one = one.parentElement) if (scrolls(one)) return false;
        return true;
      };
      return box.scrollLeft === 0 && conversation.scrollLeft === 0
        && box.scrollWidth <= innerWidth && document.body.scrollWidth <= innerWidth
        && ![...conversation.querySelectorAll("*")].some(isCut);
    }""")
    return found


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_axe_finds_no_serious_fault(tab: Tab, state: Callable[[Tab], None]) -> None:
    """In light and dark, and on a phone, where nothing has to be scrolled sideways."""
    state(tab)
    faults = []
    for viewport, schemes in ((SCREEN, get_args(Scheme)), (PHONE, ("light",))):
        tab.page.set_viewport_size(viewport)
        if viewport is PHONE:
            expect(tab.button("Settings")).to_have_attribute("aria-expanded", "false")
        if state in (settings, conversations):
            tab.shows(state.__name__.capitalize())
        for scheme in schemes:
            tab.page.emulate_media(color_scheme=scheme)
            faults += [f"{viewport['width']} {scheme}: {fault}" for fault in tab.faults()]
        assert fits(tab.page), f"{viewport['width']} pixels: the page scrolls sideways"
    tab.page.unroute_all()
    assert not faults, "\n".join(faults)


def test_the_schemes_differ(tab: Tab) -> None:
    """Dark is dark, and light is light."""
    shades = []
    for scheme in get_args(Scheme):
        tab.page.emulate_media(color_scheme=scheme)
        colour = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        shades.append(sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))))
    assert shades[0] > 700 and shades[1] < 150


def test_a_phone_can_do_everything(server: Running, tabs: Open) -> None:
    """Panels open over the text and close; nothing lies over what one has to reach."""
    tab = tabs(server.url, viewport=PHONE, has_touch=True)
    tab.ask()
    tab.button("Settings").tap()
    field = tab.page.get_by_role("spinbutton", name="Temperature")
    field.fill("0.5")
    tab.button("Settings").tap()
    expect(field).to_be_hidden()
    tab.button("Answer again with these settings").tap()
    tab.is_done()
    expect(tab.answers).to_have_count(2)
    tab.button("Conversations").tap()
    tab.button("New conversation").tap()
    expect(tab.turns).to_have_count(0)
    if tab.button("New conversation").is_visible():
        tab.button("Conversations").tap()
    tab.message.tap()
    tab.message.fill(GOLD)
    tab.button("Send").tap()
    tab.is_done()
    expect(tab.answers).to_contain_text("Au")
    tab.tokens.nth(2).tap()
    expect(tab.card).to_be_in_viewport(ratio=0.99)
    assert fits(tab.page)


def test_screen_readers_hear_what_happens(tab: Tab) -> None:
    """The status line is live and polite, answers are busy while they come, titles are titles."""
    expect(tab.status).to_have_attribute("role", "status")
    tab.alter(**ENDLESS)
    tab.send()
    expect(tab.answers).to_have_attribute("aria-busy", "true")
    tab.button("Stop").click()
    tab.is_done()
    expect(tab.answers).to_have_attribute("aria-busy", "false")
    expect(tab.page.get_by_role("heading", level=1)).to_have_count(1)
    assert tab.page.title().strip()
    assert tab.page.locator("html").get_attribute("lang") == "en"
    for landmark in ("main", "banner"):
        expect(tab.page.get_by_role(landmark)).to_have_count(1)


def test_nothing_moves_where_that_is_not_wanted(server: Running, tabs: Open) -> None:
    """No animation and no transition with prefers-reduced-motion."""
    tab = tabs(server.url, reduced_motion="reduce")
    tab.alter(**ENDLESS)
    tab.send()
    expect(tab.tokens.nth(10)).to_be_visible()
    assert tab.page.evaluate("document.getAnimations().length") == 0
    tab.button("Stop").click()
    tab.is_done()


def test_large_text(server: Running, tabs: Open) -> None:
    """Twice the size is a screen of half the width and height: everything is still reached."""
    tab = tabs(server.url, viewport={"width": 640, "height": 450})
    tab.ask()
    assert fits(tab.page)
    expect(tab.message).to_be_in_viewport()
    expect(tab.answers).to_contain_text("Paris")
