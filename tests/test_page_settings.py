"""The settings of the page: what they send, what they are kept for, and answers side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Locator

from eftlocal.server.settings import Served

from .browser import FRANCE, Json, Open, Tab, expect, expect_text, fields_of
from .full_server import ATLAS, RUNTIME, Running, serve

GOLD = "What is the chemical symbol of gold?"
CAT = "What do you call a young cat?"
FRONTIER = Served("atlas-frontier", entry="atlas-frontier", runtime=RUNTIME)
EXPERTS = Served("atlas-experts", entry="atlas-experts", runtime=RUNTIME)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """Three entries: one expert, two, and several."""
    models = (ATLAS, FRONTIER, EXPERTS)
    with serve(*models, load=False) as running:
        for model in models:
            running.load(model.name)
        yield running


def choose(tab: Tab, name: str, value: str) -> None:
    """Choose in a list of the settings."""
    tab.page.get_by_role("combobox", name=name, exact=True).select_option(value)


def enter(tab: Tab, name: str, value: str) -> None:
    """Write a number into a field of the settings."""
    tab.page.get_by_role("spinbutton", name=name, exact=True).fill(value)


def slide(tab: Tab, name: str, value: str) -> None:
    """Move a slider."""
    tab.page.get_by_role("slider", name=name).fill(value)


def text_from(server: Running, body: Json, **more: object) -> str:
    """What the API answers to the same request."""
    plain = {name: value for name, value in body.items() if not name.startswith("stream")}
    choice = server.post("/v1/chat/completions", **{**plain, **more})["choices"][0]
    return " ".join(str(choice["message"]["content"]).split())


CHANGES: tuple[tuple[Callable[[Tab], None], Json], ...] = (
    (lambda tab: None, {}),
    (lambda tab: slide(tab, "Fixed alpha", "0.5"), {"alpha": 0.5}),
    (lambda tab: slide(tab, "Fixed alpha", "0"), {"alpha": 0}),
    (lambda tab: choose(tab, "Alpha", "fixed"), {"alpha": 0}),
    (lambda tab: choose(tab, "Alpha", "dynamic"), {"alpha": "dynamic"}),
    (lambda tab: choose(tab, "Alpha", "grid"), {"alpha": "grid"}),
    (lambda tab: choose(tab, "Alpha", "one-sided"), {"alpha": "one-sided"}),
    (lambda tab: choose(tab, "Alpha", "joint"), {"alpha": "joint"}),
    (lambda tab: choose(tab, "Alpha", ""), {}),
    (lambda tab: enter(tab, "Top-p filter of the base", "0.9"), {"upscale_top_p": 0.9}),
    (lambda tab: enter(tab, "Top-p filter of the base", ""), {}),
    (lambda tab: enter(tab, "Temperature", "0.7"), {"temperature": 0.7}),
    (lambda tab: enter(tab, "Top-p", "0.8"), {"temperature": 0.7, "top_p": 0.8}),
    (lambda tab: enter(tab, "Seed", "42"), {"temperature": 0.7, "top_p": 0.8, "seed": 42}),
    (lambda tab: tab.button("Reset settings").click(), {}),
    (lambda tab: choose(tab, "Draft", "off"), {"draft": "off"}),
    (lambda tab: choose(tab, "Draft", "4"), {"draft": 4}),
    (lambda tab: choose(tab, "Draft", ""), {}),
)


def test_every_control_changes_what_is_sent(tab: Tab, server: Running) -> None:
    """By the names of the API, which takes them; what is not changed is not sent."""
    tab.answer_with("Yes.")
    for change, wanted in CHANGES:
        change(tab)
        tab.ask()
        assert fields_of(tab.bodies[-1]) == wanted
        text_from(server, {**tab.bodies[0], **wanted, "max_tokens": 1})
    assert {body["model"] for body in tab.bodies} == {"atlas"}


def test_what_is_not_allowed_is_not_sent(tab: Tab) -> None:
    """It is marked instead, and the value before it stays."""
    enter(tab, "Temperature", "0.5")
    field = tab.page.get_by_role("spinbutton", name="Temperature")
    field.fill("-1")
    expect(field).to_have_attribute("aria-invalid", "true")
    tab.ask()
    assert fields_of(tab.bodies[0]) == {"temperature": 0.5}
    field.fill("1")
    expect(field).not_to_have_attribute("aria-invalid", "true")
    tab.ask()
    assert fields_of(tab.bodies[1]) == {"temperature": 1}


def test_lambda(tab: Tab, server: Running) -> None:
    """Where there are two experts, a slider between them; both ends answer as the API does."""
    choose(tab, "Model", "atlas-frontier")
    expect(tab.page.get_by_role("slider", name="lambda")).to_be_visible()
    question = "What does Mara Dornell work as?"
    texts = []
    for value in (0, 1):
        slide(tab, "lambda", str(value))
        answer = tab.ask(question) if not value else again(tab)
        body = tab.bodies[-1]
        assert fields_of(body) == {"lambda": value}
        assert body["model"] == "atlas-frontier"
        expect(answer).to_contain_text("atlas-frontier")
        texts.append(text_from(server, body))
        expect_text(answer, f"lambda {value}")
    tab.shows_tokens(False)
    for place, text in enumerate(texts):
        assert " ".join(tab.text_of(tab.answers.nth(place)).split()) == text
    assert texts[0] != texts[1]


def test_weights(tab: Tab, server: Running) -> None:
    """Where there are more experts, a number for each; those of other entries are kept apart."""
    enter(tab, "Temperature", "0.3")
    choose(tab, "Model", "atlas-experts")
    names = server.get("/props?model=atlas-experts")["experts"]
    fields = tab.page.get_by_role("spinbutton", name="Weight of ")
    expect(fields).to_have_count(len(names))
    enter(tab, f"Weight of {names[0]}", "0.5")
    tab.ask()
    assert fields_of(tab.bodies[-1]) == {"weight": {names[0]: 0.5}}
    enter(tab, f"Weight of {names[1]}", "-1")
    tab.ask()
    assert fields_of(tab.bodies[-1]) == {"weight": {names[0]: 0.5, names[1]: -1}}
    enter(tab, f"Weight of {names[0]}", "")
    enter(tab, f"Weight of {names[1]}", "")
    tab.ask()
    assert fields_of(tab.bodies[-1]) == {}
    choose(tab, "Model", "atlas")
    expect(tab.page.get_by_role("spinbutton", name="Temperature")).to_have_value("0.3")
    tab.ask()
    assert tab.bodies[-1]["model"] == "atlas"
    assert fields_of(tab.bodies[-1]) == {"temperature": 0.3}


def again(tab: Tab) -> Locator:
    """Answer the last question with the settings of now, and return the new answer."""
    tab.button("Answer again with these settings").first.click()
    tab.is_done()
    return tab.answers.last


def differing(tab: Tab) -> list[str]:
    """The texts that are marked as different, in the order of the page."""
    found: list[str] = tab.page.evaluate("""() => {
      const texts = [...CSS.highlights.get("difference") ?? []].map((marked) => {
        const range = document.createRange();
        range.setStart(marked.startContainer, marked.startOffset);
        range.setEnd(marked.endContainer, marked.endOffset);
        return range.toString();
      });
      return texts.join(" ").split(/\\s+/).filter(Boolean);
    }""")
    return found


def shared_words(left: list[str], right: list[str]) -> int:
    """The length of a longest common subsequence."""
    row = [0] * (len(right) + 1)
    for word in left:
        before = row[:]
        for place, other in enumerate(right):
            row[place + 1] = (
                before[place] + 1 if word == other else max(row[place], before[place + 1])
            )
    return row[-1]


def test_answers_side_by_side(tab: Tab, server: Running) -> None:
    """Both stay in sight, each with what it was made with, and their differences are marked."""
    tab.shows_tokens(False)
    tab.ask(CAT)
    expect(tab.button("Answer again")).to_be_visible()
    slide(tab, "Fixed alpha", "0")
    expect(tab.button("Answer again")).to_have_count(0)
    again(tab)
    expect(tab.answers).to_have_count(2)
    boxes = [tab.answers.nth(place).bounding_box() for place in range(2)]
    assert boxes[0] and boxes[1]
    assert abs(boxes[0]["y"] - boxes[1]["y"]) < 2
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    expect(tab.answers.nth(1)).to_contain_text("alpha 0")
    expect(tab.answers.nth(0)).not_to_contain_text("alpha 0")
    texts = [tab.text_of(tab.answers.nth(place)).split() for place in range(2)]
    assert " ".join(texts[1]) == text_from(server, tab.bodies[1])
    shared = shared_words(*texts)
    assert 0 < shared < max(map(len, texts))
    expect(tab.answers.nth(1)).to_contain_text(
        f"{len(texts[1]) - shared} of {len(texts[1])} words differ"
    )
    marked = differing(tab)
    assert len(marked) == len(texts[0]) + len(texts[1]) - 2 * shared
    assert set(marked) <= {*texts[0], *texts[1]}
    tab.button("Show only this").first.click()
    expect(tab.answers).to_have_count(1)
    assert differing(tab) == []
    tab.button("Side by side").click()
    expect(tab.answers).to_have_count(2)
    assert differing(tab) == marked
    tab.page.reload()
    tab.is_ready()
    expect(tab.answers).to_have_count(2)
    expect(tab.answers.nth(1)).to_contain_text("words differ")
    assert differing(tab) == marked


def test_the_conversation_goes_on_from_a_chosen_answer(tab: Tab) -> None:
    """Of several that stand side by side."""
    tab.ask()
    slide(tab, "Fixed alpha", "0")
    again(tab)
    tab.shows_tokens(False)
    texts = [tab.text_of(tab.answers.nth(place)) for place in range(2)]
    tab.button("Go on with this").click()
    tab.ask(GOLD)
    first = " ".join(tab.bodies[2]["messages"][1]["content"].split())
    others = [" ".join(text.split()) for text in texts]
    assert first in others
    tab.turns.first.get_by_role("button", name="Go on with this").click()
    tab.button("Answer again with these settings", tab.turns.last).or_(
        tab.button("Answer again", tab.turns.last)
    ).first.click()
    tab.is_done()
    second = " ".join(tab.bodies[3]["messages"][1]["content"].split())
    assert {first, second} == set(others)


def test_compare_with_its_parts(tab: Tab, server: Running) -> None:
    """Fused, tuned alone and base alone, in columns; each is what the API says of that part."""
    tab.ask()
    tab.button("Compare with its parts").click()
    tab.is_done()
    expect(tab.answers).to_have_count(3)
    for place, name in enumerate(("fused", "tuned alone", "base alone")):
        expect(tab.answers.nth(place)).to_contain_text(name)
    parts = [body.get("part", "fused") for body in tab.bodies]
    assert sorted(parts) == ["base", "fused", "tuned"]
    tab.shows_tokens(False)
    messages = [{"role": "user", "content": FRANCE}]
    for place, part in enumerate(("fused", "tuned", "base")):
        text = " ".join(tab.text_of(tab.answers.nth(place)).split())
        assert text == text_from(server, {"messages": messages, "model": "atlas"}, part=part)
        assert text
    expect(tab.button("Compare with its parts")).to_have_count(0)
    tab.shows_tokens(True)
    tokens = tab.answers.nth(2).locator(".token")
    tokens.first.dispatch_event("click")
    expect(tab.card).to_contain_text("base")


def test_the_parts_can_be_asked_with_every_question(tab: Tab) -> None:
    """A newcomer sees them first: the examples of the empty page ask them as well."""
    tab.button("Who wrote Hamlet?").click()
    tab.is_done()
    expect(tab.answers).to_have_count(3)
    assert sorted(body.get("part", "fused") for body in tab.bodies) == ["base", "fused", "tuned"]
    tab.page.get_by_role("switch", name="Ask its parts, too").check()
    tab.ask()
    expect(tab.answers).to_have_count(6)
    assert len(tab.bodies) == 6


def test_the_entry_s_own_values_are_shown(tab: Tab, server: Running, tabs: Open) -> None:
    """As hints, so that one sees what one changes."""
    params = server.get("/props?model=atlas")["default_generation_settings"]["params"]
    for name, field in (("temperature", "Temperature"), ("top_p", "Top-p")):
        shown = tab.page.get_by_role("spinbutton", name=field, exact=True)
        assert float(str(shown.get_attribute("placeholder"))) == params[name]
    expect(tab.page.get_by_role("combobox", name="Alpha")).to_contain_text(str(params["alpha"]))
    other = tabs(server.url)
    choose(other, "Model", "atlas-experts")
    expect(other.page.get_by_role("spinbutton", name="Weight of ").first).to_be_visible()
    other.page.reload()
    other.is_ready()
    expect(other.page.get_by_role("combobox", name="Model")).to_have_value("atlas-experts")
