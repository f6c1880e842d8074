"""Conversations as files: taken out of one browser, brought into another; rubbish is refused."""

from __future__ import annotations

import json
from typing import Any

from .browser import FRANCE, Json, Open, Tab, expect, expect_text
from .full_server import Running

GOLD = "What is the chemical symbol of gold?"


def test_export_and_import(tab: Tab, server: Running, tabs: Open) -> None:
    """Another browser shows the same, and exports the same."""
    tab.page.get_by_role("textbox", name="System prompt", exact=True).fill("Be kind.")
    tab.ask()
    tab.button("Compare with its parts").click()
    tab.is_done()
    tab.button("Edit").click()
    tab.turns.first.get_by_role("textbox").fill(GOLD)
    tab.turns.first.get_by_role("textbox").press("Enter")
    tab.is_done()
    exported = tab.export()
    before = tab.snapshot()
    other = tabs(server.url)
    other.import_(exported)
    expect_text(other.status, "1 conversation")
    other.button(FRANCE).click()
    other.is_as(before)
    other.tokens.first.focus()
    expect(other.card).to_contain_text("base")
    other.page.keyboard.press("Escape")
    assert without_ids(other.export()) == without_ids(exported)
    other.button("Earlier version").click()
    expect(other.answers).to_have_count(3)
    expect(other.turns).to_contain_text("base alone")


RUBBISH: dict[str, Any] = {
    "empty": "",
    "no JSON": "hello",
    "cut": '{"format": "eftlocal-conversations", "version": 1, "conv',
    "binary": bytes(range(256)),
    "null": None,
    "a list": [],
    "a number": 5,
    "other JSON": {"messages": []},
    "other format": {"format": "x", "version": 1, "conversations": []},
    "later version": {"format": "eftlocal-conversations", "version": 99, "conversations": []},
    "no conversations": {"format": "eftlocal-conversations", "version": 1},
    "conversations of words": {
        "format": "eftlocal-conversations",
        "version": 1,
        "conversations": "all",
    },
}


def test_rubbish_is_refused_in_one_line(tab: Tab) -> None:
    """And nothing of it is kept; the page works as before."""
    for name, content in RUBBISH.items():
        tab.import_(content, f"{name}.json")
        expect_text(tab.status, r"^\W*(This file|That file|The file).*Choose|newer eftlocal")
        text = tab.status.inner_text()
        assert len(text) < 200 and "\n" not in text.strip(), name
        # So that the next file's words are not these.
        tab.page.evaluate("document.querySelector('[role=status]').textContent = ''")
    assert tab.export()["conversations"] == []
    expect(tab.ask()).to_contain_text("Paris")


ODD: dict[str, Any] = {
    "null": None,
    "a word": "conversation",
    "no turns": {"id": 5, "title": ["a"], "system": {}},
    "turns of words": {"title": "words", "turns": "turns"},
    "odd turns": {"title": "odd", "turns": [None, 5, "a", {"question": 7, "answers": {}}]},
    "odd answers": {
        "title": "answers",
        "turns": [
            {
                "question": "What?",
                "answers": [None, 7, {"id": "x", "text": 5, "usage": "much", "timings": []}],
                "chosen": 99,
                "shown": [0, 1, 2, -1, "a"],
                "others": [[], "a", [{"question": "Earlier"}]],
            }
        ],
    },
}
ODD_TOKENS: tuple[Any, ...] = (
    "all", 5, [None], [5], [{}], [{"text": 5}], [{"text": "a", "alpha": "b"}],
    [{"text": "a", "alpha": [], "models": [None], "tv": "x", "origin": "__proto__"}],
    [{"text": "a", "alpha": [1], "tv": None, "models": [{"top": 5}], "klTuned": 3}],
)  # fmt: skip


def test_odd_conversations_do_no_harm(tab: Tab) -> None:
    """What is no conversation is left out or shown as far as it goes, one after the other."""
    head = {"format": "eftlocal-conversations", "version": 1}
    answer = {"id": "x", "text": "Hello.", "part": "fused", "model": "atlas", "state": "done"}
    turn = {"question": "Tokens?", "answers": [answer], "chosen": 0, "shown": [], "others": []}
    files = [{**head, "conversations": [odd], "tokens": []} for odd in ODD.values()]
    for odd in ODD_TOKENS:
        conversation = {"title": "tokens", "system": "", "turns": [turn]}
        files.append({**head, "conversations": [conversation], "tokens": {"x": odd}})
    for file in files:
        tab.page.evaluate("document.querySelector('[role=status]').textContent = ''")
        tab.import_(file)
        expect_text(tab.status, "[a-z]")
    rows = tab.page.get_by_role("navigation", name="Conversations").get_by_role("listitem")
    assert rows.count() > len(ODD_TOKENS)
    for _ in range(2):
        for row in range(rows.count()):
            tab.shows("Conversations")
            rows.nth(row).get_by_role("button").first.click()
            if tab.tokens.count():
                tab.tokens.first.focus()
                tab.page.keyboard.press("Escape")
        tab.page.reload()
        tab.is_ready()
    tab.starts_anew()
    expect(tab.ask()).to_contain_text("Paris")


def without_ids(content: Json) -> Json:
    """Exported conversations without what an import makes anew, tokens by text of the answer."""
    text = json.dumps(content["conversations"])
    found = json.loads(text, object_hook=lambda item: {
        name: value for name, value in item.items() if name not in ("id", "created", "changed")
    })  # fmt: skip
    return {"conversations": found, "tokens": sorted(map(json.dumps, content["tokens"].values()))}
