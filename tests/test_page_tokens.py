"""The token view: what it says of every token is what the API says of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator

from eftlocal.server.settings import Served

from .browser import Json, Open, Tab, expect, expect_text
from .full_server import ENDLESS, EXACT, RUNTIME, Running, serve

DRAFT = {"draft": 4}
"""The usual "auto" goes by the clock."""
EXPERTS = Served(
    "atlas-experts", entry="atlas-experts", runtime={**RUNTIME, **EXACT}, generation=DRAFT
)
_COLOURS = """(elements) => elements.map((element) => getComputedStyle(element).backgroundColor)"""


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """Atlas and its several experts, computed so that the same request has the same numbers."""
    atlas = Served("atlas", entry="atlas", runtime={**RUNTIME, **EXACT}, generation=DRAFT)
    with serve(atlas, EXPERTS) as running:
        yield running


def traced(server: Running, body: Json) -> list[Json]:
    """What the API tells of the tokens that answer a request; `pieces` has the texts of ids."""
    more = {name: value for name, value in body.items() if not name.startswith("stream")}
    choice = server.post("/v1/chat/completions", **more)["choices"][0]
    tokens: list[Json] = choice["eft"]["tokens"]
    pieces: Json = {}
    for token in tokens:
        pieces |= token["pieces"]
    return [{**token, "pieces": pieces} for token in tokens]


def near(text: str, value: float) -> bool:
    """Whether a number or percentage that is shown is a value, rounded."""
    found = float(text.rstrip("%").removeprefix("<"))
    digits = len(text.rstrip("%").partition(".")[2])
    value = 100 * value if text.endswith("%") else value
    if text.startswith("<"):
        return value <= found
    return math.isclose(found, value, rel_tol=0, abs_tol=0.5001 * 10**-digits + 1e-4)


def quoted(piece: str) -> str:
    """A piece of text as the card writes it."""
    return '"' + piece.replace("\n", "\\n") + '"'


def check_card(card: Locator, token: Json, experts: tuple[str, ...] = ()) -> None:
    """Everything that the card says of one token."""
    trace, pieces = token["trace"], token["pieces"]
    own = quoted(pieces[str(token["token"])])
    expect(card).to_have_accessible_name(f"Token {token['index'] + 1}: {own}")
    text = card.inner_text()
    facts = {
        "total variation": [min(trace["total_variation"])],
        "KL(fused ‖ base)": [trace["kl_fused_base"]],
        "KL(tuned ‖ reference)": trace["kl_tuned_reference"],
        "alpha": token["alpha"],
    }
    for name, values in facts.items():
        found = re.search(rf"{re.escape(name)}\s+((?:[\w-]+ )?[^\s,]+(?:, [\w-]+ [^\s,]+)*)", text)
        assert found is not None, f"no {name} in {text}"
        numbers = re.findall(r"(?:^|[ ,])(<?-?\d[\d.]*|infinite)", found[1])
        assert len(numbers) == len(values), found[1]
        for number, value in zip(numbers, values, strict=True):
            assert near(number, value) if number != "infinite" else math.isinf(value), (text, value)
    assert trace["origin"] in text
    assert ("not drafted" in text) == (not token["from_draft"])
    assert ("drafted and accepted" in text) == token["from_draft"]
    names = ["fused", "base"]
    views = [trace["fused"], trace["base"]]
    for place, (tuned, reference) in enumerate(
        zip(trace["tuned"], trace["reference"], strict=True)
    ):
        prefix = f"{experts[place]} " if experts else ""
        names += [f"{prefix}tuned", f"{prefix}reference"]
        views += [tuned, reference]
    expect(card.get_by_role("list")).to_have_count(len(names))
    for name, view in zip(names, views, strict=True):
        check_choices(card.get_by_role("list", name=name, exact=True), view, token)


def check_choices(choices: Locator, view: Json, token: Json) -> None:
    """The likeliest tokens of one model with their probabilities; the chosen one is marked."""
    trace, pieces = token["trace"], token["pieces"]
    pairs = [
        (quoted(pieces[str(number)]), math.exp(logprob), number)
        for number, logprob in zip(trace["ids"], view["logprobs"], strict=True)
        if logprob is not None and math.isfinite(logprob)
    ]
    likeliest = sorted(pairs, key=lambda pair: -pair[1])[:5]
    rows = [row.split("\n") for row in choices.get_by_role("listitem").all_inner_texts()]
    for (text, share, _), row in zip(likeliest, rows, strict=False):
        assert near(row[-1].split()[-1], share), (rows, share)
        # Of two that are equally likely either may come first.
        tied = [pair[0] for pair in pairs if abs(pair[1] - share) < 1e-3]
        assert any(row[0].startswith(name) for name in (text, *tied)), (rows, text)
    is_among = token["token"] in [number for _, _, number in likeliest]
    assert len(rows) == len(likeliest) + (not is_among)
    marked = choices.locator(".chosen")
    expect(marked).to_have_count(1)
    expect(marked).to_contain_text(quoted(pieces[str(token["token"])]))
    assert near(re.split(r"\s", marked.inner_text())[-1], view["probability"])


def test_tokens_are_those_of_the_api(tab: Tab, server: Running) -> None:
    """Their texts, in their order; drafted ones are marked."""
    tab.ask()
    tokens = traced(server, tab.bodies[0])
    texts = [text.strip() for text in tab.tokens.all_text_contents()]
    assert texts == [token["text"].strip() for token in tokens]
    marked = tab.tokens.evaluate_all("all => all.map((one) => one.classList.contains('drafted'))")
    assert marked == [token["from_draft"] for token in tokens]
    assert any(marked)


def test_the_card_by_keyboard(tab: Tab, server: Running) -> None:
    """One Tab stop; arrows, Home and End go from token to token; Escape closes the card."""
    tab.ask()
    tokens = traced(server, tab.bodies[0])
    assert tab.tokens.evaluate_all("all => all.filter((one) => one.tabIndex === 0).length") == 1
    tab.tokens.first.focus()
    press = tab.page.keyboard.press
    for token in tokens:
        expect(tab.tokens.nth(token["index"])).to_be_focused()
        expect(tab.card).to_be_visible()
        check_card(tab.card, token)
        press("ArrowRight")
    expect(tab.tokens.last).to_be_focused()
    for key, place in (
        ("Home", 0),
        ("ArrowLeft", 0),
        ("ArrowDown", 1),
        ("ArrowUp", 0),
        ("End", -1),
    ):
        press(key)
        expect(tab.tokens.nth(place)).to_be_focused()
        check_card(tab.card, tokens[place])
    press("Escape")
    expect(tab.card).to_be_hidden()
    press("ArrowLeft")
    expect(tab.card).to_be_visible()
    # The card's own controls may come first.
    for _ in range(4):
        press("Tab")
        if tab.button("Copy answer").evaluate("one => one === document.activeElement"):
            break
    expect(tab.button("Copy answer")).to_be_focused()
    expect(tab.card).to_be_hidden()
    assert tab.tokens.evaluate_all("all => all.filter((one) => one.tabIndex === 0).length") == 1


def test_the_card_by_hover_and_by_tap(tab: Tab, server: Running, tabs: Open) -> None:
    """The same card; it stays while it is read, and goes with the pointer."""
    tab.ask()
    tokens = traced(server, tab.bodies[0])
    for place in (0, 3, len(tokens) - 2):
        tab.message.hover()
        expect(tab.card).to_be_hidden()
        tab.tokens.nth(place).hover()
        expect(tab.card).to_have_accessible_name(re.compile(f"^Token {place + 1}:"))
        check_card(tab.card, tokens[place])
    tab.card.hover()
    expect(tab.card).to_have_accessible_name(re.compile(f"^Token {len(tokens) - 1}:"))
    tab.message.hover()
    expect(tab.card).to_be_hidden()
    phone = tabs(server.url, has_touch=True, viewport={"width": 390, "height": 844})
    phone.ask()
    phone.tokens.nth(2).tap()
    expect(phone.card).to_be_visible()
    check_card(phone.card, tokens[2])
    phone.button("Close", phone.card).tap()
    expect(phone.card).to_be_hidden()


def test_the_card_is_never_off_the_screen(tab: Tab) -> None:
    """Whatever the place of the token."""
    tab.alter(**{**ENDLESS, "max_tokens": 250})
    tab.ask()
    tab.page.set_viewport_size({"width": 700, "height": 500})
    for place in (0, 40, 100, 200, 248):
        tab.open_card(place)
        expect(tab.card).to_be_in_viewport(ratio=0.99)
        expect(tab.tokens.nth(place)).to_be_in_viewport()


def legend_of(tab: Tab) -> dict[str, str]:
    """What the legend shows now: words -> colour."""
    swatches = tab.page.locator(".legend .swatch").locator("visible=true")
    return dict(zip(swatches.all_inner_texts(), swatches.evaluate_all(_COLOURS), strict=True))


def shade_of(legend: dict[str, str], value: float) -> str:
    """The colour that a legend of ranges gives a number."""
    ranges = [text for text in legend if " to " in text]
    for text in ranges:
        low, high = map(float, text.split(" to "))
        if value < high - 1e-9 or text == ranges[-1]:
            assert value >= low - 1e-9
            return legend[text]
    raise AssertionError(f"the legend has no colour for {value}")


def test_colours(tab: Tab, server: Running) -> None:
    """Each colouring gives every token the colour that its legend says."""
    tab.alter(**{**ENDLESS, "max_tokens": 60})
    tab.ask()
    tokens = traced(server, {**tab.bodies[0], **ENDLESS, "max_tokens": 60})
    is_word = [bool(token["text"].strip()) for token in tokens]

    def colours() -> list[str]:
        return [
            colour
            for colour, shown in zip(tab.tokens.evaluate_all(_COLOURS), is_word, strict=True)
            if shown
        ]

    shown = [token for token, shown in zip(tokens, is_word, strict=True) if shown]
    expect(tab.page.get_by_role("radio", name="total variation")).to_be_checked()
    legend = legend_of(tab)
    wanted = [shade_of(legend, min(token["trace"]["total_variation"])) for token in shown]
    assert len(set(wanted)) > 2
    assert colours() == wanted
    tab.page.get_by_role("radio", name="alpha", exact=True).check()
    legend = legend_of(tab)
    wanted = [shade_of(legend, token["alpha"][0]) for token in shown]
    assert len(set(wanted)) > 2
    assert colours() == wanted
    tab.page.get_by_role("radio", name="who decided").check()
    legend = legend_of(tab)
    assert set(legend) >= {"agreement", "base", "delta", "fusion"}
    wanted = [legend[token["trace"]["origin"]] for token in shown]
    assert len(set(wanted)) > 1
    assert colours() == wanted


def test_several_experts(server: Running, tabs: Open) -> None:
    """Each has its columns in the card, its alpha and its line in the chart."""
    server.load("atlas-experts")
    tab = tabs(server.url)
    tab.page.get_by_role("combobox", name="Model").select_option("atlas-experts")
    expect_text(tab.status, "atlas-experts")
    tab.ask("What is the capital of France?")
    tokens = traced(server, tab.bodies[0])
    experts = tuple(server.get("/props?model=atlas-experts")["experts"])
    assert len(experts) > 1
    for place in (0, 2, len(tokens) - 1):
        tab.open_card(place)
        check_card(tab.card, tokens[place], experts)
    for name in experts:
        expect(tab.page.locator("figcaption").get_by_text(name)).to_be_visible()


def test_without_traces_there_is_still_a_text(tab: Tab) -> None:
    """With the view off nothing costly is asked for; switched on later, it says what it lacks."""
    tab.shows_tokens(False)
    answer = tab.ask()
    assert "trace" not in tab.bodies[0]
    expect(tab.page.get_by_role("radio", name="who decided")).to_be_hidden()
    tab.shows_tokens(True)
    expect(answer).to_contain_text("Answer again to see it")
    expect(answer).to_contain_text("Paris")
    tab.button("Answer again").click()
    tab.is_done()
    tab.tokens.first.focus()
    expect(tab.card).to_contain_text("total variation")
    assert tab.bodies[1]["trace"] is True


def test_odd_tokens_are_shown_as_escapes(tab: Tab) -> None:
    """New lines, blanks and what does not print have a visible form in the card."""
    entries: list[Any] = [
        {"index": place, "token": place, "text": text, "logprob": -1.0, "alpha": [1.0],
         "from_draft": False}
        for place, text in enumerate(["\n\n", "  ", "\t", "\u202e", "\u0000", "é", ""])
    ]  # fmt: skip
    tab.chunks([{"delta": {"content": "a"}, "eft": {"tokens": entries}}])
    tab.ask()
    names = ['"\\n\\n"', '"  "', '"\\t"', '"\\u202e"', '"\\x00"', '"é"', '""']
    for place, name in enumerate(names):
        tab.open_card(place)
        expect(tab.card).to_have_accessible_name(f"Token {place + 1}: {name}")
