"""The chart of alpha and total variation along an answer."""

from __future__ import annotations

import re

from .browser import Tab, expect
from .full_server import ENDLESS, Running
from .test_page_tokens import traced

STEP = 7
"""Width of a token in the chart, in CSS pixels."""

_BARS = """(canvas) => {
  const { width, height } = canvas;
  const pixels = new Uint32Array(
    canvas.getContext("2d").getImageData(0, 0, width, height).data.buffer);
  const scale = width / canvas.clientWidth;
  const bars = [];
  for (let x = 3.5 * scale; x < width; x += 7 * scale) {
    const at = (y) => pixels[(height - 1 - y) * width + Math.floor(x)];
    let top = 0;
    while (top < height && at(top) === at(0)) top++;
    bars.push(top / height);
  }
  return bars;
}"""


def test_the_chart(tab: Tab, server: Running) -> None:
    """A bar per token, as high as its total variation; a click goes to the token."""
    tab.ask()
    tokens = traced(server, tab.bodies[0])
    chart = tab.page.get_by_role("img", name=re.compile(f"{len(tokens)} tokens"))
    expect(chart).to_be_visible()
    values = [min(token["trace"]["total_variation"]) for token in tokens]
    mean = f"{sum(values) / len(values):.2f}"
    expect(chart).to_have_accessible_name(re.compile(rf"mean total variation {mean}"))
    bars = chart.evaluate(_BARS)
    for token, bar, value in zip(tokens, bars, values, strict=False):
        # The line of alpha may cross low ones.
        if value > 0.1 and token["alpha"][0] > 2 * value + 0.2:
            assert abs(bar - value) <= 0.05, (token["index"], bar, value)
    assert max(values) > 0.1
    for place in (0, 5, len(tokens) - 1):
        chart.click(position={"x": place * STEP + 3, "y": 20})
        expect(tab.tokens.nth(place)).to_be_focused()
        expect(tab.card).to_be_visible()


def test_the_chart_scrolls_with_the_text(tab: Tab) -> None:
    """What is in sight of the text is in the middle of the chart."""
    tab.alter(**{**ENDLESS, "max_tokens": 400})
    tab.ask()
    tab.page.set_viewport_size({"width": 1280, "height": 500})
    chart = tab.page.get_by_role("img", name=re.compile(r"\d+ tokens"))
    width = chart.bounding_box()["width"]  # type: ignore[index]
    text = tab.page.get_by_role("region", name="Conversation", exact=True)
    places = []
    for share in (0.0, 0.5, 1.0):
        text.evaluate(f"(box) => {{ box.scrollTop = {share} * box.scrollHeight; }}")
        tab.page.evaluate("() => new Promise((go) => requestAnimationFrame(() => setTimeout(go)))")
        chart.click(position={"x": width * share if share < 1 else width - 2, "y": 20})
        focused = tab.page.locator(".token:focus")
        expect(focused).to_be_in_viewport()
        places.append(
            focused.evaluate(
                "(one) => [...one.closest('[role=group]').querySelectorAll('.token')].indexOf(one)"
            )
        )
    assert places[0] == 0
    assert places[0] + 50 < places[1] < places[2] - 50
    assert places[2] >= 400 - 2
