"""Conversations on the page: asked, stopped, changed, kept, taken away and brought back."""

from __future__ import annotations

from typing import Any

from .browser import FRANCE, Json, Open, Tab, expect, expect_text
from .full_server import ENDLESS, Running

GOLD = "What is the chemical symbol of gold?"


def words(text: Any) -> str:
    """A text without differences of white space."""
    return " ".join(str(text).split())


def asked(body: Json) -> list[tuple[str, str]]:
    """Role and text of all messages of a request."""
    return [(message["role"], message["content"]) for message in body["messages"]]


def reply_of(server: Running, body: Json) -> str:
    """The same request's answer from the API, in one piece."""
    more = {name: value for name, value in body.items() if not name.startswith("stream")}
    return str(server.post("/v1/chat/completions", **more)["choices"][0]["message"]["content"])


def test_a_question_is_answered(tab: Tab, server: Running) -> None:
    """With the text that the API gives, as tokens and as Markdown; facts below it."""
    answer = tab.ask()
    assert asked(tab.bodies[0]) == [("user", FRANCE)]
    reply = words(reply_of(server, tab.bodies[0]))
    assert "Paris" in reply
    assert words("".join(tab.tokens.all_text_contents())).replace(" ", "") == reply.replace(" ", "")
    tab.shows_tokens(False)
    expect(tab.tokens.first).to_be_hidden()
    assert words(tab.text_of(answer)) == reply
    expect(answer).to_contain_text("tokens/s")
    expect_text(tab.status, r"tokens/s .* drafts accepted .* context \d+ of 1,024")
    assert tab.message.input_value() == ""


def test_an_answer_streams_and_can_be_stopped(tab: Tab, server: Running) -> None:
    """It grows while it comes; Stop keeps what there is, and ends the work of the server."""
    tab.alter(**ENDLESS)
    tab.send()
    expect(tab.tokens.nth(3)).to_be_visible()
    expect(tab.button("Stop")).to_be_visible()
    seen = tab.tokens.count()
    expect(tab.tokens.nth(seen + 20)).to_be_visible()
    expect_text(tab.status, r"tokens/s")
    tab.button("Stop").click()
    tab.is_done()
    server.until_jobs(0, 0)
    expect(tab.answers).to_contain_text("Stopped.")
    assert 20 < tab.tokens.count() < ENDLESS["max_tokens"]
    tab.alter()
    tab.ask(GOLD)
    assert [role for role, _ in asked(tab.bodies[1])] == ["user", "assistant", "user"]


def test_escape_stops_as_well(tab: Tab, server: Running) -> None:
    """From where one writes."""
    tab.alter(**ENDLESS)
    tab.message.fill(FRANCE)
    tab.message.press("Enter")
    expect(tab.tokens.nth(3)).to_be_visible()
    tab.message.press("Escape")
    tab.is_done()
    server.until_jobs(0, 0)


def test_the_next_question_knows_what_was_said(tab: Tab, server: Running) -> None:
    """Enter sends, Shift+Enter is a new line; nothing is sent without words."""
    tab.message.press("Enter")
    tab.message.fill("   ")
    tab.message.press("Enter")
    expect(tab.turns).to_have_count(0)
    tab.ask()
    reply = reply_of(server, tab.bodies[0])
    tab.message.fill("And that")
    tab.message.press("Shift+Enter")
    tab.message.press_sequentially("of Chile?")
    tab.message.press("Enter")
    tab.is_done()
    expect(tab.turns).to_have_count(2)
    messages = [("user", FRANCE), ("assistant", reply), ("user", "And that\nof Chile?")]
    assert asked(tab.bodies[1]) == messages


def test_answer_again(tab: Tab) -> None:
    """The same question once more; both answers stay, and one can leaf through them."""
    tab.ask()
    tab.alter(regex="[a-z]{5}")
    tab.button("Answer again").click()
    tab.is_done()
    assert asked(tab.bodies[1]) == asked(tab.bodies[0])
    expect(tab.answers).to_have_count(1)
    expect(tab.answers).not_to_contain_text("Paris")
    expect(tab.turns).to_contain_text("answer 2 of 2")
    tab.button("Previous").click()
    expect(tab.answers).to_contain_text("Paris")
    expect(tab.turns).to_contain_text("answer 1 of 2")
    tab.alter()
    tab.ask(GOLD)
    # The conversation goes on from the answer that is shown.
    assert "Paris" in asked(tab.bodies[2])[1][1]


def test_edit_and_resend(tab: Tab) -> None:
    """What followed makes way for the new question, and can be brought back."""
    tab.ask()
    tab.ask(GOLD)
    tab.button("Edit", tab.turns.first).click()
    field = tab.turns.first.get_by_role("textbox")
    expect(field).to_be_focused()
    expect(field).to_have_value(FRANCE)
    field.fill("What is the capital of Chile?")
    tab.button("Send", tab.turns.first).click()
    tab.is_done()
    assert asked(tab.bodies[2]) == [("user", "What is the capital of Chile?")]
    expect(tab.turns).to_have_count(1)
    expect(tab.answers).to_contain_text("Santiago")
    tab.button("Earlier version").click()
    expect(tab.turns).to_have_count(2)
    expect(tab.turns.first).to_contain_text("Paris")
    tab.button("Earlier version").click()
    expect(tab.turns).to_have_count(1)
    expect(tab.answers).to_contain_text("Santiago")


def test_an_edit_can_be_given_up(tab: Tab) -> None:
    """Nothing is asked, nothing is lost."""
    tab.ask()
    for leave in ("Escape", "Cancel"):
        tab.button("Edit").click()
        field = tab.turns.first.get_by_role("textbox")
        field.fill("Something else")
        if leave == "Escape":
            field.press("Escape")
        else:
            tab.button("Cancel").click()
        expect(field).to_have_count(0)
    expect(tab.turns).to_contain_text(FRANCE)
    assert len(tab.bodies) == 1


def test_the_system_prompt_belongs_to_a_conversation(tab: Tab) -> None:
    """It is sent first, and another conversation has its own."""
    system = tab.page.get_by_role("textbox", name="System prompt", exact=True)
    system.fill("Be kind.")
    tab.ask()
    assert asked(tab.bodies[0]) == [("system", "Be kind."), ("user", FRANCE)]
    tab.starts_anew()
    expect(system).to_have_value("")
    tab.ask(GOLD)
    assert asked(tab.bodies[1]) == [("user", GOLD)]
    tab.shows("Conversations")
    tab.button(FRANCE).click()
    expect(system).to_have_value("Be kind.")


def test_several_conversations(tab: Tab) -> None:
    """Each has its title; an answer goes on in one that is not shown; they can be deleted.

    A conversation has one question at a time: what is sent meanwhile stays where it was written.
    """
    tab.alter(**{**ENDLESS, "max_tokens": 300})
    tab.send()
    expect(tab.tokens.nth(3)).to_be_visible()
    tab.send(GOLD)
    expect_text(tab.status, "Wait for it, or stop it")
    expect(tab.message).to_have_value(GOLD)
    tab.starts_anew()
    tab.alter()
    tab.send(GOLD)
    expect(tab.answers).to_contain_text("Au")
    tab.is_done()
    tab.shows("Conversations")
    tab.button(FRANCE).click()
    expect(tab.turns).to_contain_text(FRANCE)
    expect(tab.answers).not_to_contain_text("Au")
    expect(tab.tokens.nth(298)).to_be_visible()
    expect(tab.button(FRANCE)).to_have_attribute("aria-current", "true")
    with tab.dialog(accept=False):
        tab.button(f"Delete {GOLD}").click()
    expect(tab.button(GOLD)).to_have_count(1)
    for title in (GOLD, FRANCE):
        with tab.dialog(accept=True):
            tab.button(f"Delete {title}").click()
        expect(tab.button(title)).to_have_count(0)
    expect(tab.turns).to_have_count(0)


def test_a_reload_keeps_everything(tab: Tab) -> None:
    """Texts, tokens, answers that are not shown, settings, switches."""
    tab.page.get_by_role("textbox", name="System prompt", exact=True).fill("Be kind.")
    tab.ask()
    tab.page.get_by_role("spinbutton", name="Temperature").fill("0.5")
    tab.button("Answer again with these settings").click()
    tab.is_done()
    tab.page.get_by_role("radio", name="who decided").check()
    before = tab.snapshot()
    assert "temperature 0.5" in before
    tab.page.reload()
    tab.is_ready()
    tab.is_as(before)
    expect(tab.page.get_by_role("radio", name="who decided")).to_be_checked()
    expect(tab.page.get_by_role("spinbutton", name="Temperature")).to_have_value("0.5")
    tab.tokens.first.focus()
    expect(tab.card).to_contain_text("base")
    tab.shows_tokens(False)
    before = tab.snapshot()
    tab.page.reload()
    tab.is_ready()
    tab.is_as(before)
    expect(tab.page.get_by_role("switch", name="Token view")).not_to_be_checked()


def test_a_reload_in_the_middle_keeps_the_question(tab: Tab, server: Running) -> None:
    """What had come by then is stopped, not waited for, and can be asked for again."""
    tab.alter(**ENDLESS)
    tab.send()
    expect(tab.tokens.nth(3)).to_be_visible()
    tab.page.reload()
    tab.is_ready()
    server.until_jobs(0, 0)
    expect(tab.turns).to_contain_text(FRANCE)
    expect(tab.answers).to_contain_text("Stopped.")
    expect(tab.button("Stop")).to_be_hidden()
    tab.alter()
    tab.button("Answer again").click()
    tab.is_done()
    expect(tab.answers).to_contain_text("Paris")


def test_copy_answer(server: Running, tabs: Open) -> None:
    """The text as the model wrote it."""
    tab = tabs(server.url, permissions=["clipboard-read", "clipboard-write"])
    tab.alter(regex=r"\*\*a\*\* b")
    tab.ask()
    tab.button("Copy answer").click()
    expect(tab.button("Copied")).to_be_visible()
    assert tab.page.evaluate("navigator.clipboard.readText()") == "**a** b"


def test_markdown_and_code_with_copy(server: Running, tabs: Open) -> None:
    """Headings, lists, tables, and code that can be copied alone."""
    tab = tabs(server.url, permissions=["clipboard-read", "clipboard-write"])
    text = (
        "## Title\n\n- one\n- *two*\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```py\nx = 1 < 2\n```\n"
    )
    tab.answer_with(*text)
    answer = tab.ask()
    tab.shows_tokens(False)
    expect(answer.get_by_role("heading", name="Title")).to_be_visible()
    expect(answer.get_by_role("listitem")).to_have_count(2)
    expect(answer.get_by_role("cell")).to_have_count(2)
    expect(answer.locator("em")).to_have_text("two")
    expect(answer.locator("pre code")).to_have_text("x = 1 < 2\n")
    expect(answer.get_by_role("figure")).to_contain_text("py")
    tab.button("Copy code").click()
    expect(answer.get_by_role("figure")).to_contain_text("Copied")
    assert tab.page.evaluate("navigator.clipboard.readText()").strip() == "x = 1 < 2"


def test_reasoning_is_folded(tab: Tab) -> None:
    """It is there when it is asked for, and no part of the answer or of the next request."""
    events = [
        {"reasoning_content": "Let me "},
        {"reasoning_content": "think."},
        {"content": "Yes."},
    ]
    tab.answer_with(*events)
    answer = tab.ask()
    tab.shows_tokens(False)
    expect(answer).to_contain_text("Yes.")
    expect(answer.get_by_text("Let me think.")).to_be_hidden()
    answer.get_by_text("Reasoning").click()
    expect(answer.get_by_text("Let me think.")).to_be_visible()
    tab.ask(GOLD)
    assert asked(tab.bodies[1])[1] == ("assistant", "Yes.")
    tab.page.reload()
    tab.is_ready()
    expect(tab.answers.first.get_by_text("Let me think.")).to_be_hidden()
