"""The page of `eftlocal serve` in a real browser, through its names and roles as people know them.

Without a browser these tests are skipped, unless EFTLOCAL_BROWSER=1 asks for them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Error,
    Locator,
    Request,
    Route,
    ViewportSize,
    expect,
    sync_playwright,
)

Json = dict[str, Any]
Scheme = Literal["light", "dark"]

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 30_000
"""Milliseconds after which something is said never to come; no test waits for time alone."""
CHAT = re.compile(r"/v1/chat/completions$")
SCREEN: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
FRANCE = "What is the capital of France?"
expect.set_options(timeout=PATIENCE)

_REPORT = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy ${event.violatedDirective} refused ${event.blockedURI} ${event.sample}`);
});
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window.

    Playwright keeps an event loop in its thread while it runs, so that no test beside it can
    start one: it must not outlive a test file.
    """
    with sync_playwright() as playwright:
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        own = playwright.chromium.executable_path
        if program is None and not Path(own).exists():
            text = "there is no Chromium or Chrome here; `playwright install chromium` gets one"
            if os.environ.get("EFTLOCAL_BROWSER") == "1":
                pytest.fail(text)
            pytest.skip(text)
        # Chromium's own sandbox does not start in containers, and what it shows here is ours.
        browser = playwright.chromium.launch(
            executable_path=program or own, args=["--no-sandbox"], timeout=2 * PATIENCE
        )
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page of a browser that looks at a server.

    Args:
        browser: where.
        url: of the server.
        options: of Playwright's context, such as color_scheme and viewport.

    Attributes:
        page: Playwright's own.
        bodies: what was sent to /v1/chat/completions.
        expected: patterns of what may be said on the console, such as failed requests.
    """

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        options = {"viewport": SCREEN, "locale": "en-US"} | options
        self.url = url
        self.bodies: list[Json] = []
        self.expected: list[str] = []
        self._troubles: list[str] = []
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(PATIENCE)
        self.context.add_init_script(_REPORT)
        self.page = self.context.new_page()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self._troubles.append(f"error: {error}"))
        self.page.on("request", self._see)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._troubles.append(f"{message.type}: {message.text}")

    def _see(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self._troubles.append(f"asked another server: {request.url}")
        if CHAT.search(request.url):
            self.bodies.append(json.loads(request.post_data or "{}"))

    @property
    def troubles(self) -> list[str]:
        """What went wrong on the page and was not expected."""
        return [
            text
            for text in self._troubles
            if not any(re.search(pattern, text) for pattern in self.expected)
        ]

    def close(self) -> None:
        """Close it; fails where something went wrong on it."""
        self.context.close()
        assert not self.troubles, "\n".join(self.troubles)

    def button(self, name: str, within: Locator | None = None, exact: bool = True) -> Locator:
        """A button by its name."""
        return (within or self.page).get_by_role("button", name=name, exact=exact)

    def field(self, name: str) -> Locator:
        """A field of any kind by its label."""
        return self.page.get_by_label(name, exact=True)

    @property
    def message(self) -> Locator:
        """Where questions are written."""
        return self.page.get_by_role("textbox", name="Message", exact=True)

    @property
    def status(self) -> Locator:
        """The status line."""
        return self.page.get_by_role("status")

    @property
    def answers(self) -> Locator:
        """All answers that are shown, in their order."""
        return self.page.get_by_role("article")

    @property
    def turns(self) -> Locator:
        """All questions with their answers."""
        return self.page.get_by_role("region", name="Question and answers")

    @property
    def tokens(self) -> Locator:
        """All tokens that are shown."""
        return self.answers.locator(".token")

    @property
    def card(self) -> Locator:
        """What is told of one token."""
        return self.page.get_by_role("dialog", name=re.compile("^Token "))

    def is_ready(self) -> None:
        """Wait until the model's settings are there."""
        # Also where the panel of settings is closed.
        self._until(
            "[...document.querySelectorAll('label')].some((one) => /^Model/.test(one.textContent))"
        )

    def is_done(self) -> None:
        """Wait until no answer comes any more."""
        self._until(
            "[...document.querySelectorAll('button')]"
            ".every((one) => one.textContent !== 'Stop' || !one.checkVisibility())"
        )

    def _until(self, condition: str) -> None:
        """Wait until an expression holds; looks more often than `expect` does."""
        deadline = time.monotonic() + PATIENCE / 1000
        while not self.page.evaluate(f"() => {condition}"):
            assert time.monotonic() < deadline, f"it never came: {condition}"
            self.page.wait_for_timeout(15)

    def send(self, question: str = FRANCE) -> None:
        """Ask, and do not wait."""
        self.message.fill(question)
        self.button("Send", self.page.locator(".composer")).click()

    def ask(self, question: str = FRANCE) -> Locator:
        """Ask, wait for the end of the answer, and return it."""
        self.send(question)
        self.is_done()
        return self.answers.last

    def may_fail(self) -> None:
        """Expect that the browser says of requests that they failed."""
        self.expected.append("Failed to load resource")

    def open_card(self, place: int) -> None:
        """Choose a token, whether it is in sight or not."""
        self.tokens.nth(place).dispatch_event("click")
        expect(self.card).to_have_accessible_name(re.compile(f"^Token {place + 1}:"))

    def shows_tokens(self, on: bool) -> None:
        """Turn the token view on or off."""
        self.page.get_by_role("switch", name="Token view", exact=True).set_checked(on)

    def text_of(self, answer: Locator) -> str:
        """The text of an answer, as it is in the view that is on."""
        return answer.locator(".markdown, .tokens").locator("visible=true").inner_text().strip()

    def alter(self, **fields: Any) -> None:
        """Send more fields with every question than the page does."""

        def change(route: Route) -> None:
            body = json.loads(route.request.post_data or "{}")
            route.continue_(post_data=json.dumps({**body, **fields}))

        self.page.unroute(CHAT)
        self.page.route(CHAT, change)

    def answer_with(self, *parts: str | Json, **fields: Any) -> None:
        """Answer every question in the server's place, with a chunk for each text or delta."""
        deltas = [{"content": part} if isinstance(part, str) else part for part in parts]
        self.chunks([{"delta": delta} for delta in deltas], **fields)

    def chunks(self, choices: Sequence[Json], **fields: Any) -> None:
        """The same with whole choices; `fields` are those of the last chunk."""
        chunks = [{"choices": [{"index": 0, **choice}]} for choice in choices]
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], **fields}
        events = [f"data: {json.dumps(chunk)}\n\n" for chunk in (*chunks, end)]
        self.fulfil("".join([*events, "data: [DONE]\n\n"]))

    def fulfil(self, body: str, status: int = 200, kind: str = "text/event-stream") -> None:
        """Answer every question with these bytes."""
        self.page.unroute(CHAT)
        answer = {"body": body, "status": status, "content_type": kind}
        self.page.route(CHAT, lambda route: route.fulfill(**answer))

    def shows(self, panel: str) -> None:
        """Open the panel of conversations or of settings."""
        opener = self.button(panel)
        if opener.get_attribute("aria-expanded") != "true":
            opener.click()
        expect(opener).to_have_attribute("aria-expanded", "true")

    def starts_anew(self) -> None:
        """Begin another conversation."""
        self.shows("Conversations")
        self.button("New conversation").click()
        expect(self.turns).to_have_count(0)

    def snapshot(self) -> str:
        """Everything that is said in the conversation, with roles and names."""
        return self._conversation.aria_snapshot()

    def is_as(self, snapshot: str) -> None:
        """Wait until the conversation is as it was."""
        expect(self._conversation).to_match_aria_snapshot(snapshot)

    @property
    def _conversation(self) -> Locator:
        return self.page.get_by_role("region", name="Conversation", exact=True)

    @contextmanager
    def dialog(self, accept: bool) -> Iterator[None]:
        """Answer the browser's own question, which has to come."""
        with self.page.expect_event("dialog", lambda dialog: answered(dialog, accept)):
            yield

    def export(self) -> Json:
        """What Export writes."""
        self.shows("Conversations")
        with self.page.expect_download() as download:
            self.button("Export").click()
        content: Json = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
        return content

    def import_(self, content: Any, name: str = "file.json") -> None:
        """Choose a file with Import; what is no text or bytes is written as JSON."""
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        data = text.encode() if isinstance(text, str) else text
        self.shows("Conversations")
        with self.page.expect_file_chooser() as chooser:
            self.button("Import").click()
        chooser.value.set_files({"name": name, "mimeType": "application/json", "buffer": data})

    def faults(self) -> list[str]:
        """What axe finds that is serious or critical, with the elements."""
        found = Axe().run(self.page).response["violations"]
        return [
            f"{fault['id']} ({fault['impact']}): {fault['help']}: "
            + "; ".join(node["html"][:200] for node in fault["nodes"][:4])
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]


Open = Callable[..., Tab]


@contextmanager
def tabs_of(browser: Browser) -> Iterator[Open]:
    """What opens tabs (see `Tab`); all are closed and judged at the end of the block.

    With `ready`, which is usual, the page knows its model by then.
    """
    opened: list[Tab] = []

    def open_tab(url: str, ready: bool = True, **options: Any) -> Tab:
        tab = Tab(browser, url, **options)
        opened.append(tab)
        tab.page.goto(url)
        if ready:
            tab.is_ready()
        return tab

    try:
        yield open_tab
    finally:
        for tab in opened:
            tab.close()


def answered(dialog: Dialog, accept: bool) -> bool:
    """Answer a question of the browser."""
    if accept:
        dialog.accept()
    else:
        dialog.dismiss()
    return True


def fields_of(body: Mapping[str, Any]) -> Json:
    """What the settings add to a request."""
    usual = {"messages", "model", "stream", "stream_options", "trace", "alphas"}
    return {name: value for name, value in body.items() if name not in usual}


def expect_text(locator: Locator, pattern: str) -> None:
    """Wait until an element's text matches a regular expression somewhere."""
    expect(locator).to_have_text(re.compile(pattern, re.DOTALL))


__all__ = ["Error", "expect"]
