"""How smooth the page stays while a long answer comes; `pytest -s` shows the figures."""

from __future__ import annotations

from typing import Any

from .browser import Open, expect
from .conftest import Trio
from .full_server import made, serve

N_TOKENS = 2000

_OBSERVE = """
globalThis.longTasks = [];
new PerformanceObserver((list) => {
  for (const { startTime, duration } of list.getEntries()) longTasks.push([startTime, duration]);
}).observe({ type: "longtask", buffered: true });
"""


def test_two_thousand_tokens_with_the_token_view(trio: Trio, tabs: Open) -> None:
    """All of them are there at the end; long tasks are counted and shown, and decide nothing."""
    with serve(made("random", trio, ctx=4096, parallel=1)) as server:
        tab = tabs(server.url, ready=False)
        tab.context.add_init_script(_OBSERVE)
        tab.page.reload()
        tab.is_ready()
        # The faster they come, the more the page has to do at once.
        quick = {"alpha": 1, "draft": "off", "temperature": 1}
        tab.alter(max_tokens=N_TOKENS, logit_bias={"2": -100, "262": -100}, **quick)
        started = tab.page.evaluate("performance.now()")
        tab.send()
        expect(tab.tokens.nth(N_TOKENS - 2)).to_be_attached(timeout=300_000)
        tab.is_done()
        ended = tab.page.evaluate("performance.now()")
        expect(tab.tokens).to_have_count(N_TOKENS)
        tasks: list[Any] = [one for one in tab.page.evaluate("longTasks") if one[0] >= started]
        longest = max((duration for _, duration in tasks), default=0.0)
        over = sum(duration > 100 for _, duration in tasks)
        print(
            f"\nLONG TASKS: {len(tasks)} above 50 ms, {over} above 100 ms, longest {longest:.0f} "
            f"ms, while {N_TOKENS} tokens came in {(ended - started) / 1000:.1f} s"
        )
