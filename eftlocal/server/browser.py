"""Opens the page in the browser of whoever started the server: `eftlocal serve --open`."""

from __future__ import annotations

import logging
import threading
import webbrowser

logger = logging.getLogger("eftlocal.server")

_TEXT_BROWSERS = frozenset({"www-browser", "links", "elinks", "lynx", "w3m"})
"""They run no scripts, and would take the server's terminal."""


def open_page(url: str) -> None:
    """Open an address in a browser, or log one line where that cannot be; does not wait."""
    threading.Thread(target=_open, args=(url,), daemon=True).start()


def _open(url: str) -> None:
    try:
        browser = webbrowser.get()
        found = getattr(browser, "name", "") not in _TEXT_BROWSERS and browser.open(url)
    except (webbrowser.Error, OSError):
        found = False
    if not found:
        logger.warning("--open: no browser can be opened here; the page is at %s", url)
