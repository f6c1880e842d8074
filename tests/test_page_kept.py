"""No conversation is lost: other tabs, hidden tabs, leaving and deleting while answers come."""

from __future__ import annotations

from .browser import FRANCE, Tab, expect, expect_text
from .full_server import ENDLESS, Running

GOLD = "What is the chemical symbol of gold?"
_ONE = {**ENDLESS, "max_tokens": 150}
_HIDDEN = """
globalThis.requestAnimationFrame = () => 0;
"""
_COUNT = """() => new Promise((resolve) => {
  indexedDB.open("eftlocal").onsuccess = ({ target: { result: database } }) => {
    const counted = database.transaction("tokens").objectStore("tokens").count();
    counted.onsuccess = () => resolve(counted.result) ?? database.close();
  };
})"""
"""How many pieces of tokens the browser keeps, of whatever conversation."""


def beside(tab: Tab) -> Tab:
    """Another tab of the same browser, on the same conversation."""
    other = object.__new__(Tab)
    other.__dict__.update(tab.__dict__)
    other.page = tab.context.new_page()
    other.page.goto(tab.url)
    other.is_ready()
    return other


def test_an_answer_ends_well_after_its_conversation_was_left(tab: Tab) -> None:
    """And is there whole when one comes back, also after a reload."""
    tab.alter(**_ONE)
    tab.send()
    expect(tab.tokens.nth(3)).to_be_visible()
    tab.starts_anew()
    tab.shows("Conversations")
    tab.button(FRANCE).click()
    tab.is_done()
    expect(tab.tokens).to_have_count(_ONE["max_tokens"])
    tab.starts_anew()
    tab.button(FRANCE).click()
    expect(tab.tokens).to_have_count(_ONE["max_tokens"])
    expect(tab.answers).not_to_contain_text("Stopped.")
    tab.page.get_by_role("textbox", name="System prompt", exact=True).fill("Be kind.")
    tab.page.reload()
    expect(tab.tokens).to_have_count(_ONE["max_tokens"])


def test_deleting_while_an_answer_comes(tab: Tab, server: Running) -> None:
    """Ends the answer, and nothing of it comes back."""
    tab.alter(**ENDLESS)
    tab.send()
    expect(tab.tokens.nth(3)).to_be_visible()
    tab.shows("Conversations")
    with tab.dialog(accept=True):
        tab.button(f"Delete {FRANCE}").click()
    server.until_jobs(0, 0)
    tab.page.reload()
    tab.is_ready()
    assert tab.export() == {
        "format": "eftlocal-conversations", "version": 1, "conversations": [], "tokens": {}
    }  # fmt: skip


def test_two_tabs_keep_both_versions(tab: Tab) -> None:
    """What one tab adds to a conversation is not overwritten by the other, but kept beside it."""
    tab.ask()
    other = beside(tab)
    other.ask(GOLD)
    tab.ask("Who wrote Hamlet?")
    kept = tab.export()["conversations"]
    questions = sorted([turn["question"] for turn in one["turns"]] for one in kept)
    assert questions == [[FRANCE, GOLD], [FRANCE, "Who wrote Hamlet?"]]
    assert sum(one["title"].endswith("(copy)") for one in kept) == 1
    assert tab.page.evaluate(_COUNT) > 0
    for one in kept:
        title = one["title"]
        with tab.dialog(accept=True):
            tab.button(f"Delete {title}").click()
        expect(tab.button(f"Delete {title}")).to_have_count(0)
    assert tab.page.evaluate(_COUNT) == 0


def test_a_conversation_that_another_tab_deleted(tab: Tab) -> None:
    """Is said to be gone; the page goes on."""
    tab.ask()
    tab.starts_anew()
    other = beside(tab)
    other.shows("Conversations")
    with other.page.expect_event("dialog", lambda dialog: dialog.accept() is None):
        other.button(f"Delete {FRANCE}").click()
    expect(other.button(FRANCE)).to_have_count(0)
    tab.button(FRANCE).click()
    expect_text(tab.status, "not there any more")
    expect(tab.button(FRANCE)).to_have_count(0)
    expect(tab.ask(GOLD)).to_contain_text("Au")


def test_a_hidden_tab_keeps_what_comes(tab: Tab) -> None:
    """Browsers draw no frames there; half an answer is still there after a reload."""
    tab.page.add_init_script(_HIDDEN)
    tab.page.reload()
    tab.is_ready()
    tab.alter(**ENDLESS)
    tab.send()
    expect(tab.tokens.nth(20)).to_be_attached()
    tab.page.reload()
    tab.is_ready()
    expect(tab.tokens.nth(5)).to_be_attached()
    expect(tab.answers).to_contain_text("Stopped.")
