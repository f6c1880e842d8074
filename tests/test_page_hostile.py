"""Whatever a model writes, a person types or a file holds: on the page it is text alone.

The models are made to say it by a regular expression, and a server's own name can hold it, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from .browser import FRANCE, Open, Tab, expect, expect_text
from .full_server import ATLAS, serve

ATTACKS = (
    "<script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    "<svg onload=window.hit=1><animate onbegin=window.hit=1 /></svg>",
    "<iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    "<a href=javascript:window.hit=1>go</a>",
    "<form action=/v1/models><button>go</button></form>",
    "<style>*{display:none}</style>",
    "<base href=//evil.example><meta http-equiv=refresh content=0>",
    "[go](javascript:window.hit=1)",
    "[go](JaVaScRiPt:window.hit=1)",
    "[go](&#106;avascript:window.hit=1)",
    "[go](java\\script:window.hit=1)",
    "[go](vbscript:window.hit=1)",
    "[go](data:text/html,<script>window.hit=1</script>)",
    "[go](//evil.example/x)",
    "[go](/v1/models)",
    "[go](blob:null/x)",
    "<javascript:window.hit=1>",
    "![x](https://evil.example/x.png)",
    "![x](javascript:window.hit=1)",
    "[x]: javascript:window.hit=1\n\n[go][x]",
    '[go](https://a.example "x onmouseover=window.hit=1 y=")',
    "```<script>window.hit=1</script>\n<script>window.hit=1</script>\n```",
    "`<script>window.hit=1</script>`",
    "| <script>window.hit=1</script> | b |\n|---|---|\n| <img src=x onerror=window.hit=1> | 2 |",
    "&lt;script&gt;window.hit=1&lt;/script&gt;",
    "{{constructor.constructor('window.hit=1')()}} ${window.hit=1}",
)
"""Nothing of it may run, load anything, or lead anywhere but to https, http and mailto."""

SAID = (*ATTACKS[:2], ATTACKS[8], ATTACKS[18], ATTACKS[22])

_CHECK = """() => {
  const found = [];
  if ("hit" in window) found.push("it ran");
  for (const one of document.querySelectorAll("script, iframe, object, embed, base, meta, style,"
      + "link, img, svg, form, video, audio")) {
    const inHead = document.head.contains(one);
    const isForm = one.matches("form.composer, dialog form");
    if (!inHead && !isForm) found.push(`element ${one.outerHTML.slice(0, 200)}`);
  }
  for (const one of document.querySelectorAll("*")) {
    for (const { name, value } of one.attributes) {
      if (name.startsWith("on")) found.push(`handler ${name} of ${one.tagName}`);
      if (name === "srcdoc" || name === "formaction") found.push(`${name} of ${one.tagName}`);
      if (name !== "href" && name !== "src" || document.head.contains(one)) continue;
      if (!/^(https?:\\/\\/|mailto:)/.test(value)) found.push(`${name}=${value}`);
      if (!/noopener/.test(one.rel)) found.push(`${name}=${value} without noopener`);
    }
  }
  return found;
}"""


def check(tab: Tab) -> None:
    """Nothing ran, and there is nothing on the page that could."""
    assert tab.page.evaluate(_CHECK) == []
    assert tab.page.url == f"{tab.url}/"
    for link in tab.page.locator("a:visible").all():
        assert link.get_attribute("target") == "_blank"


@pytest.fixture
def clicks(tab: Tab) -> Iterator[Tab]:
    """The page, on which nothing may open another one."""
    opened: list[str] = []
    tab.context.on("page", lambda page: opened.append(page.url))
    yield tab
    assert opened == []


def test_what_a_model_writes_is_text(clicks: Tab) -> None:
    """As tokens, as Markdown, and after a reload; models are made to say it."""
    tab = clicks
    for attack in SAID:
        tab.alter(regex=re.escape(attack).replace("\\\n", "\\n"), max_tokens=400)
        tab.starts_anew()
        tab.shows_tokens(True)
        tab.ask(attack[::-1])
        check(tab)
        shown = "".join(tab.tokens.all_text_contents())
        assert "".join(shown.split()) == "".join(attack.split())
        tab.open_card(0)
        check(tab)
        tab.page.keyboard.press("Escape")
        tab.shows_tokens(False)
        check(tab)
    kept = [one["turns"][0]["answers"][0]["text"] for one in tab.export()["conversations"]]
    assert sorted(kept) == sorted(SAID)
    tab.page.reload()
    tab.is_ready()
    for attack in SAID:
        tab.shows("Conversations")
        tab.button(attack[::-1][:80]).click()
        expect(tab.turns).to_contain_text(attack[::-1])
        check(tab)


def test_what_an_answer_holds_is_text(clicks: Tab) -> None:
    """All attacks in one conversation, cut in two where they stream; also after a reload."""
    tab = clicks
    tab.shows_tokens(False)
    for attack in ATTACKS:
        half = len(attack) // 2
        tab.answer_with(attack[:half], attack[half:])
        answer = tab.ask()
        check(tab)
        assert answer.locator(".markdown").inner_text().strip()
    for link in tab.answers.get_by_role("link").all():
        assert re.match(r"https?://", link.get_attribute("href") or "")
    tab.page.reload()
    tab.is_ready()
    expect(tab.answers).to_have_count(len(ATTACKS))
    check(tab)


def test_what_people_type_is_text(tab: Tab) -> None:
    """In the question, the title, the system prompt, a setting."""
    for attack in ATTACKS[:2]:
        tab.page.get_by_role("textbox", name="System prompt", exact=True).fill(attack)
        tab.answer_with("Yes.")
        tab.ask(attack)
        expect(tab.turns.last).to_contain_text(attack)
        tab.shows("Conversations")
        expect(tab.button(attack[:80])).to_have_count(1)
        check(tab)
        tab.page.reload()
        tab.is_ready()
        check(tab)
        tab.shows("Conversations")
        tab.button("New conversation").click()


def test_imported_conversations_are_text(tab: Tab) -> None:
    """Every field of them."""
    for attack in (*ATTACKS[:2], "javascript:window.hit=1"):
        model = {"top": [[attack, 0.5]], "place": 0, "chosen": 0.5}
        record = {
            "text": attack, "piece": attack, "isEnd": attack, "alpha": [1], "tv": 0.5,
            "klBase": 0.1, "klTuned": [0.1], "origin": attack, "draft": attack, "logprob": -1,
            "models": [model] * 4,
        }  # fmt: skip
        answer = {
            "id": attack, "text": attack, "reasoning": attack, "error": attack, "model": attack,
            "part": attack, "state": "done", "changes": {attack: attack, "weight": {attack: 1}},
            "usage": {"total_tokens": attack}, "experts": [attack], "seed": attack,
            "timings": {"predicted_per_second": attack, "draft_n": attack,
                        "draft_n_accepted": attack}, "nCtx": attack, "bounds": {"low": attack},
        }  # fmt: skip
        turn = {"question": attack, "answers": [answer, answer], "chosen": 0, "shown": [0, 1]}
        conversation = {"title": attack, "system": attack, "turns": [{**turn, "others": []}]}
        tab.import_(
            {
                "format": "eftlocal-conversations",
                "version": 1,
                "conversations": [{"id": attack, **conversation}],
                "tokens": {attack: [record, record]},
            }
        )
        expect_text(tab.status, "1 conversation")
        tab.shows("Conversations")
        tab.button(attack[:80]).first.click()
        expect(tab.turns).to_contain_text(attack)
        check(tab)
        if tab.tokens.count():
            tab.tokens.first.dispatch_event("click")
            check(tab)
            tab.page.keyboard.press("Escape")
        tab.shows_tokens(False)
        check(tab)
        tab.page.reload()
        tab.is_ready()
        tab.shows_tokens(True)
        check(tab)


def test_rubbish_in_the_browsers_own_storage(tab: Tab) -> None:
    """Another program of the same address may have written there."""
    for value in ("", "{", "null", "5", '"x"', '{"atlas": 5}', '{"atlas": {"alpha": {}}}', "<b>"):
        tab.page.evaluate(
            """(value) => {
              for (const name of ["settings", "model", "tokens", "parts", "colour"]) {
                localStorage.setItem(`eftlocal.${name}`, value);
              }
              sessionStorage.setItem("eftlocal.key", value.replace(/[^a-z]/g, ""));
            }""",
            value,
        )
        tab.may_fail()
        tab.page.reload()
        tab.is_ready()
        check(tab)
    tab.button("Reset settings").click()
    expect(tab.ask()).to_contain_text("Paris")


def test_names_of_models_are_text(tabs: Open) -> None:
    """And those of their experts, and what the server says of errors."""
    name = '<img src=x onerror="window.hit=1">'
    with serve(replace(ATLAS, name=name)) as server:
        tab = tabs(server.url)
        expect(tab.page.get_by_role("combobox", name="Model")).to_have_value(name)
        expect_text(tab.status, "Ready.*<img")
        answer = tab.ask()
        expect(answer).to_contain_text(name)
        check(tab)
        tab.may_fail()
        message = f"no {ATTACKS[0]} {ATTACKS[1]}"
        tab.fulfil(f'{{"error": {{"message": "{message}"}}}}', 400, "application/json")
        expect(tab.ask()).to_contain_text(ATTACKS[0])
        check(tab)


LONG: dict[str, Any] = {
    "one word": "x" * 1_000_000,
    "words": "word " * 200_000,
    "emphasis": "*a **b _c " * 30_000,
    "brackets": "[" * 60_000,
    "links": "[a](" * 20_000,
    "quotes": ">" * 50_000,
    "nested lists": "".join(f"{' ' * i}- a\n" for i in range(400)),
    "backticks": "`" * 59_999,
    "entities": "&amp;" * 50_000,
    "table": "|a" * 5_000 + "\n" + "|-" * 5_000 + "\n" + "|a" * 5_000,
    "lines": "\n" * 300_000,
    "marks": "a\u0301" * 200_000 + "\u202e" * 1_000,
}


def test_long_and_twisted_answers_leave_the_page_usable(tab: Tab) -> None:
    """They can be looked at both ways, asked again, and kept."""
    for text in LONG.values():
        half = len(text) // 2
        tab.starts_anew()
        tab.answer_with(text[:half], text[half:])
        tab.ask()
        check(tab)
        for on in (False, True, False):
            tab.shows_tokens(on)
        assert tab.page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        tab.answer_with("Paris.")
        tab.button("Edit").click()
        tab.turns.first.get_by_role("textbox").fill(FRANCE)
        tab.button("Send", tab.turns.first).click()
        tab.is_done()
        expect(tab.answers).to_contain_text("Paris.")
    turns = [one["turns"][0]["others"][0][0] for one in tab.export()["conversations"]]
    assert sorted(turn["answers"][0]["text"] for turn in turns) == sorted(LONG.values())


def test_the_end_of_a_long_answer_is_there(tab: Tab) -> None:
    """Where one scrolls to it."""
    tab.answer_with("word " * 100_000 + "the end")
    answer = tab.ask()
    tab.shows_tokens(False)
    expect(answer).to_contain_text("the end")
    tab.page.get_by_role("region", name="Conversation", exact=True).press("End")
    expect(answer.get_by_text("the end").last).to_be_visible()
