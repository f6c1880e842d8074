"""The page without a mouse: everything is reached with Tab, and the focus is never lost."""

from __future__ import annotations

from .browser import FRANCE, Tab, expect

GOLD = "What is the chemical symbol of gold?"


class Keyboard:
    """Somebody who has no mouse: goes to things with Tab alone.

    Args:
        tab: where.
    """

    def __init__(self, tab: Tab) -> None:
        self._tab = tab
        self._press = tab.page.keyboard.press

    def to(self, role: str, name: str, most: int = 80) -> None:
        """Press Tab until something has the focus, which one has to see."""
        wanted = self._tab.page.get_by_role(role, name=name, exact=True)  # type: ignore[arg-type]
        for _ in range(most):
            self._press("Tab")
            for one in wanted.all():
                if one.evaluate("one => one === document.activeElement"):
                    self.sees_focus()
                    return
        raise AssertionError(f"Tab never comes to the {role} {name}")

    def sees_focus(self) -> None:
        """The element that has the focus is in sight and shows it."""
        focused = self._tab.page.locator(":focus")
        expect(focused).to_be_in_viewport()
        shown = focused.evaluate("one => getComputedStyle(one).outlineStyle")
        assert shown != "none", focused.evaluate("one => one.outerHTML.slice(0, 200)")

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for pressed in keys:
            self._press(pressed)

    def writes(self, text: str) -> None:
        """Write into what has the focus."""
        self._tab.page.keyboard.type(text)


def test_tokens_by_keyboard(tab: Tab) -> None:
    """Ask, go to the answer, through its tokens, to the colours; no mouse."""
    keys = Keyboard(tab)
    expect(tab.message).to_be_focused()
    keys.writes(FRANCE)
    keys.press("Enter")
    tab.is_done()
    expect(tab.message).to_be_focused()
    # The order of focus goes round the page.
    keys.to("button", "Settings")
    keys.to("button", "Edit")
    keys.press("Tab")
    expect(tab.tokens.first).to_be_focused()
    keys.sees_focus()
    expect(tab.card).to_be_visible()
    keys.press("ArrowRight", "ArrowRight")
    expect(tab.tokens.nth(2)).to_be_focused()
    keys.press("Escape")
    expect(tab.card).to_be_hidden()
    keys.to("switch", "Token view")
    keys.press("Space")
    expect(tab.tokens.first).to_be_hidden()
    keys.press("Space")
    expect(tab.tokens.first).to_be_visible()
    keys.to("radio", "total variation")
    keys.press("ArrowRight")
    expect(tab.page.get_by_role("radio", name="alpha", exact=True)).to_be_checked()


def test_a_conversation_by_keyboard(tab: Tab) -> None:
    """Change settings, answer again, look at one, compare, edit, begin anew; no mouse."""
    keys = Keyboard(tab)
    expect(tab.message).to_be_focused()
    keys.writes(FRANCE)
    keys.press("Enter")
    tab.is_done()
    keys.to("slider", "Fixed alpha")
    for _ in range(20):
        keys.press("ArrowLeft")
    keys.to("spinbutton", "Seed")
    keys.writes("7")
    keys.to("button", "Answer again with these settings")
    keys.press("Enter")
    tab.is_done()
    expect(tab.answers).to_have_count(2)
    assert {name: tab.bodies[1][name] for name in ("alpha", "seed")} == {"alpha": 0, "seed": 7}
    focus_is_somewhere(tab)
    keys.to("button", "Show only this")
    keys.press("Enter")
    expect(tab.answers).to_have_count(1)
    focus_is_somewhere(tab)
    keys.to("button", "Compare with its parts")
    keys.press("Enter")
    tab.is_done()
    expect(tab.answers).to_have_count(3)
    focus_is_somewhere(tab)
    keys.to("button", "Edit")
    keys.press("Enter")
    expect(tab.turns.first.get_by_role("textbox")).to_be_focused()
    keys.press("Control+a")
    keys.writes(GOLD)
    keys.press("Enter")
    tab.is_done()
    expect(tab.answers).to_contain_text("Au")
    focus_is_somewhere(tab)
    keys.to("button", "Conversations")
    keys.press("Enter")
    keys.to("button", "New conversation")
    keys.press("Enter")
    expect(tab.turns).to_have_count(0)
    expect(tab.message).to_be_focused()


def focus_is_somewhere(tab: Tab) -> None:
    """What had the focus may have gone; then something near it has it, and not the whole page."""
    expect(tab.page.locator(":focus")).to_have_count(1)
