"""Take the README's pictures of the page anew: scripts/page.png and scripts/page-dark.png.

Needs the extra `test` and Chromium or Chrome. Starts a server of its own with atlas.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

QUESTION = "What is the chemical symbol of gold?"
PICTURES = {"light": "page.png", "dark": "page-dark.png"}
SIZE = {"width": 1280, "height": 760}


def main() -> None:
    """Ask the question, point at a telling token, and take a picture in each scheme."""
    command = [sys.executable, "-m", "eftlocal", "serve", "-m", "atlas", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            url = _address(server)
            with sync_playwright() as playwright:
                program = shutil.which("chromium") or shutil.which("google-chrome")
                browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
                for scheme, name in PICTURES.items():
                    page = browser.new_page(viewport=SIZE, color_scheme=scheme)  # type: ignore[arg-type]
                    _show(page, url)
                    page.screenshot(path=Path(__file__).parent / name)
                browser.close()
        finally:
            server.terminate()


def _address(server: subprocess.Popen[str]) -> str:
    """Where the server says that it listens."""
    assert server.stderr is not None, "it is a pipe"
    for line in server.stderr:
        found = re.search(r"http://[\w.:]+", line) if "serves" in line else None
        if found:
            return found[0]
    raise SystemExit("the server did not start")


def _show(page: Page, url: str) -> None:
    """Three answers side by side, and the card of the last token that fusing changed much."""
    page.goto(url)
    page.get_by_role("button", name=QUESTION).click()
    expect(page.get_by_text(re.compile("words differ"))).to_have_count(2)
    page.locator(".tokens").first.locator(".v3, .v4").last.hover()
    expect(page.get_by_role("dialog")).to_be_visible()


if __name__ == "__main__":
    main()
