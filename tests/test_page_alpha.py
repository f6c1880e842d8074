"""What the page says of alpha, against what the API sent for the same answer."""

from __future__ import annotations

import re

import pytest

from eftlocal.server.settings import Served

from .browser import Open, Tab, expect
from .full_server import RUNTIME, serve


@pytest.mark.parametrize("fixed", [None, "1.5"])
def test_parts_have_no_alpha(tab: Tab, fixed: str | None) -> None:
    """Their cards and chart say none, whatever the fused answer's alpha is; its own card does."""
    if fixed:
        tab.page.get_by_role("slider", name="Fixed alpha").fill(fixed)
    tab.ask()
    tab.button("Compare with its parts").click()
    tab.is_done()
    for place, name in enumerate(("fused", "tuned alone", "base alone")):
        answer = tab.answers.nth(place)
        answer.locator(".token").nth(1).dispatch_event("click")
        expect(tab.card).to_contain_text(f"KL({name} ‖ base)")
        expect(tab.page.locator(".strip")).to_contain_text(f"{name}; bars")
        if name == "fused":
            expect(tab.card).to_contain_text(f"alpha {fixed or ''}")
        else:
            expect(tab.card).not_to_contain_text("alpha")
            expect(tab.page.locator(".strip")).not_to_contain_text("alpha")
            expect(answer.locator(".bound")).to_have_count(0)


def test_alpha_is_told_before_weights(tabs: Open) -> None:
    """As `eftlocal explain` tells it: of a weighed expert the API has alpha times its weight."""
    # With caches of their own and without drafts the same request gives the same bits again.
    runtime = {**RUNTIME, "kv_unified": "off"}
    entry = Served("f", entry="atlas-frontier", runtime=runtime, generation={"draft": "off"})
    with serve(entry) as server:
        tab = tabs(server.url)
        tab.page.get_by_role("combobox", name="Alpha").select_option("dynamic")
        tab.page.get_by_role("slider", name="lambda").fill("0.7")
        tab.ask()
        body = {key: value for key, value in tab.bodies[0].items() if "stream" not in key}
        choice = server.post("/v1/chat/completions", **body)["choices"][0]
        sent = [token["alpha"] for token in choice["eft"]["tokens"]]
        assert len(sent) > 5
        bounds = 0
        for place, (first, second) in enumerate(sent):
            assert first / 0.7 == pytest.approx(second / 0.3, abs=1e-6)
            tab.open_card(place)
            shown = re.search(
                r"alpha ([\d.]+) \(open ([\d.]+), careful ([\d.]+)\)(.*)", tab.card.inner_text()
            )
            assert shown is not None
            numbers = [float(shown[i]) for i in (1, 2, 3)]
            assert numbers == pytest.approx([first / 0.7, first, second], abs=0.006)
            is_bound = min(abs(first / 0.7 - 2), abs(first)) < 2e-6
            assert ("at its bound" in shown[4]) == is_bound
            bounds += is_bound
        expect(tab.answers.locator(".bound")).to_have_count(bounds)
        assert 0 < bounds < len(sent)
