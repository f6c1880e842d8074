"""What a traced reply says, and the page that shows it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eftlocal.diagnostics import ORIGINS
from eftlocal.errors import UsageError
from eftlocal.explain import Reply, page
from eftlocal.explain.analysis import (
    LEVELS,
    alpha_range,
    changes_at,
    level,
    pieces,
    strongest,
    summarise,
    total_variation,
)
from eftlocal.explain.wording import changes_lines, number, percent, quoted, short, summary_lines

from .rows import many
from .traces import END, PIECES, header, reply

AWKWARD = list(range(3, 24))
tokens = st.lists(st.one_of(st.none(), st.integers(3, len(PIECES) - 1)), min_size=1, max_size=20)
alphas = st.sampled_from((0.0, 0.4, 1.0, 1.3, 2.0))


@many
@given(tokens, st.booleans(), st.integers(0, 99))
def test_pieces_are_the_text_and_all_tokens(
    chosen: list[int | None], ends: bool, seed: int
) -> None:
    """Pieces hold every token once and in order; those of the text are the text."""
    made = reply([*chosen, END] if ends else chosen, seed=seed)
    found = pieces(made)
    assert [token for piece in found for token in piece.tokens] == list(made.tokens)
    assert "".join(piece.text for piece in found if piece.is_text) == made.text
    assert all(piece.text and piece.tokens for piece in found)
    if ends:
        assert not found[-1].is_text


def test_parts_of_a_character_show_as_one() -> None:
    """The three bytes of a euro sign are one piece; its strength is that of the strongest."""
    made = reply([3, 10, 11, 12, 6, END])
    found = pieces(made)
    assert [piece.text for piece in found] == [" the", "€", ".", "<|end|>"]
    assert [len(piece.tokens) for piece in found] == [1, 3, 1, 1]
    variations = [total_variation(token) for token in found[1].tokens]
    assert total_variation(found[1].strongest) == max(variations)


def test_levels_cover_zero_to_one() -> None:
    """Every number from 0 to 1 has a shade, larger ones no lighter one."""
    shades = [level(i / 1000) for i in range(1001)]
    assert shades == sorted(shades)
    assert set(shades) == set(range(LEVELS))
    assert (level(-0.5), level(1.5), level(0.2)) == (0, LEVELS - 1, 1)


def test_strongest_are_sorted_by_variation() -> None:
    """The largest total variation comes first; with several experts the nearest model counts."""
    made = reply([None] * 12, [(0.5, 0.5)] * 12, header(("a", "b")))
    found = strongest(made, 5)
    values = [min(token.trace.total_variation) for token in found]
    assert values == sorted(values, reverse=True)
    assert values[0] == max(min(token.trace.total_variation) for token in made.tokens)
    assert len(found) == 5


RANGES = {
    "fixed": ({"alpha": 0.7}, ("fixed", 0.7, 0.7)),
    "dynamic": ({"alpha": "dynamic", "alpha_low": -1, "alpha_high": 3}, ("dynamic", -1, 3)),
    "grid": ({"alpha": "grid", "alpha_low": -1, "alpha_high": 3}, ("grid", 0, 2)),
}


@pytest.mark.parametrize(("options", "expected"), RANGES.values(), ids=RANGES)
def test_alpha_ranges(options: dict[str, Any], expected: tuple[str, float, float]) -> None:
    """Bounds are those of the options, but the grid has its own and a fixed alpha has none."""
    found = alpha_range(header(**options))
    assert (found.mode, found.low, found.high) == expected
    assert found.is_bound(found.high) == (found.mode != "fixed")
    assert not found.is_bound((found.low + found.high) / 2 + 0.01)


def test_weights_are_taken_out_of_alpha() -> None:
    """With weights, the alpha of the search is what each delta was multiplied with, by weight."""
    made = reply(
        [None] * 2, [(0.5, -1.5), (1.0, -3.0)],
        header(("a", "b"), alpha="dynamic", weight={"a": 0.25, "b": -0.75}),
    )  # fmt: skip
    found = alpha_range(made.header)
    assert [found.chosen(token) for token in made.tokens] == [2.0, 4.0]
    free = reply([None] * 2, [(0.5, 0.0), (0.0, 1.5)], header(("a", "b"), alpha="dynamic"))
    found = alpha_range(free.header)
    assert [found.chosen(token) for token in free.tokens] == [0.5, 1.5]
    assert found.per_expert


def test_summaries_count() -> None:
    """Counts of the summary are those of the tokens; an empty reply has nothing to explain."""
    made = reply([None, None, 3, 4, 5], [(0.0,), (2.0,), (1.0,), (0.5,), (2.0,)],
                 header(alpha="dynamic"))  # fmt: skip
    found = summarise(made)
    assert found.tokens == 5
    assert found.at_bound == 3
    assert found.mean_alpha == pytest.approx(1.1)
    assert sum(found.origins.values()) == 5
    assert set(found.origins) <= set(ORIGINS)
    assert found.strong == sum(total_variation(token) >= 0.5 for token in made.tokens)
    assert "3 at a bound (0 or 2)" in " ".join(summary_lines(found, alpha_range(made.header)))
    with pytest.raises(UsageError, match="no tokens"):
        summarise(reply([]))


@many
@given(alphas, alphas, st.integers(0, 99), st.integers(1, 2))
def test_changes_are_those_of_fusing_anew(old: float, new: float, seed: int, n: int) -> None:
    """A place is a change where the likeliest saved token at the other alpha differs."""
    made = reply([None] * 8, [(old / n,) * n] * 8, header(list("ab")[:n], alpha=old), seed)
    found = changes_at(made, new)
    expected = []
    for token in made.tokens:
        trace = token.trace
        deltas = zip(trace.tuned, trace.reference, strict=True)
        scores = list(trace.base.logprobs)
        for tuned, reference in deltas:
            pairs = zip(tuned.logprobs, reference.logprobs, strict=True)
            scores = [x + new / n * (t - q) for x, (t, q) in zip(scores, pairs, strict=True)]
        best = trace.ids[scores.index(max(scores))]
        if best != trace.fused.top:
            expected.append((token.index, best))
    assert [(change.token.index, change.new) for change in found.places] == expected
    if new == old:
        assert (found.places, found.open_places) == ((), 0)
    if new > old:
        assert not any(change.is_certain for change in found.places)
        assert found.open_places == 8 - len(found.places)


def test_what_a_trace_cannot_know_is_said() -> None:
    """Beyond the saved alpha every place is open, and the sentences say so."""
    made = reply([None] * 6, [(1.0,)] * 6, header(alpha=1.0))
    text = " ".join(changes_lines(changes_at(made, 1.0)))
    assert text == "At alpha 1 the same tokens would have been the likeliest."
    text = " ".join(changes_lines(changes_at(made, 1.9)))
    assert "cannot know" in text or "the same tokens" in text
    assert "outside of them" in text


def test_numbers_are_short() -> None:
    """Numbers keep what counts."""
    assert [percent(x) for x in (1, 0.9996, 0.994, 0.0994, 0.004, 0.0001)] == [
        "100%", "100%", "99%", "9.9%", "0.4%", "<0.1%",
    ]  # fmt: skip
    assert [number(x) for x in (0, 0.5, 0.003, 0.00001, float("inf"), -1.5)] == [
        "0.00", "0.50", "0.003", "<0.0001", "infinite", "-1.50",
    ]  # fmt: skip
    assert [short(x) for x in (1.0, 0.5, -0.0, 1.234)] == ["1", "0.5", "0", "1.23"]
    assert quoted("a\n\t\x1b\u202e\u200b é") == '"a\\n\\t\\x1b\\u202e\\u200b é"'
    assert quoted("x" * 20, 10) == '"xxxxxxx..."'


class Reader(HTMLParser):
    """Reads a page: its elements, all text, the reply's text, and what is still open."""

    VOID = ("meta", "input", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.answer = ""
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember an element."""
        values = {name: value or "" for name, value in attrs}
        self.elements.append((tag, values))
        if tag not in self.VOID:
            self.open.append((tag, values.get("class", "")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """SVG's closed elements."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        """Elements end in the order in which they began."""
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        """Collect text."""
        self.text += data
        classes = [name for _, names in self.open for name in names.split()]
        if "answer" in classes and "card" not in classes and "none" not in classes:
            self.answer += data


def shown(text: str) -> str:
    """A reply's text without the control characters that a page must not have."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text)


MADE: dict[str, Reply] = {
    "awkward": reply([*AWKWARD, END]),
    "dynamic": reply([None] * 9, [(i / 4,) for i in range(9)], header(alpha="dynamic")),
    "experts": reply(
        [None] * 5, [(0.5, 0.0, -0.2)] * 5, header(["a", "<b>", "c"], alpha="dynamic")
    ),
    "weights": reply([None] * 5, [(0.5, 0.5)] * 5, header(["a", "b"], lambda_=0.5)),
    "one": reply([END]),
    "long": reply([None] * 300),
    "negative": reply([None] * 4, [(-1.0,)] * 4, header(alpha=-1)),
}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
@pytest.mark.parametrize("by_alpha", [False, True], ids=["variation", "alpha"])
def test_the_page_is_whole_and_alone(made: Reply, by_alpha: bool) -> None:
    """Elements nest, the reply reads as it was, and nothing runs or comes from elsewhere."""
    text = page(made, by_alpha=by_alpha, changes=changes_at(made, 0.3))
    read = Reader(text)
    assert read.open == []
    assert read.answer == shown(made.text)
    names = {tag for tag, _ in read.elements}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "b>", "base", "form"})
    for tag, values in read.elements:
        assert not any(name.startswith("on") or name in ("src", "style") for name in values), tag
        assert values.get("href", "#").startswith("#")
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert "@import" not in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_every_token_can_be_reached(made: Reply) -> None:
    """Every token has one place of its own, details, and a bar; all links lead somewhere."""
    read = Reader(page(made))
    ids = [values["id"] for _, values in read.elements if "id" in values]
    assert len(ids) == len(set(ids))
    assert {f"t{token.index}" for token in made.tokens} <= set(ids)
    targets = {
        values["href"][1:] for tag, values in read.elements if tag == "a" and "href" in values
    }
    assert targets <= set(ids)
    bars = [values for _, values in read.elements if values.get("class", "").startswith("bar ")]
    assert len(bars) == len(made.tokens)
    assert all(f"token {token.index}:" in read.text for token in made.tokens)


def test_drawn_heights_are_the_numbers() -> None:
    """A bar's height is proportional to its total variation, and alphas lie between the bounds."""
    made = MADE["dynamic"]
    read = Reader(page(made))
    bars = [values for _, values in read.elements if values.get("class", "").startswith("bar ")]
    bottom = max(float(bar["y"]) + float(bar["height"]) for bar in bars)
    for token, bar in zip(made.tokens, bars, strict=True):
        drawn = (bottom - float(bar["y"])) / 120
        assert drawn == pytest.approx(total_variation(token), abs=0.01)
        assert bar["class"] == f"bar v{level(total_variation(token))}"
    lines = [values for tag, values in read.elements if tag == "line"]
    bounds = [float(values["y1"]) for values in lines if values["class"] == "bound"]
    marks = [values for _, values in read.elements if values.get("class") == "mark"]
    assert len(bounds) == 2
    assert sorted(float(mark["cy"]) for mark in marks) == sorted(bounds)
    (curve,) = [values["d"] for _, values in read.elements if "d" in values]
    heights = [float(y) for y in re.findall(r"[ML]\S+ ([\d.]+)H", curve)]
    expected = [bounds[0] + (bounds[1] - bounds[0]) * i / 8 for i in range(9)]
    assert heights == pytest.approx(expected, abs=0.02)


def test_experts_have_their_own_curves() -> None:
    """Each expert's alpha is a curve where it was searched; shares of one alpha are one curve."""
    for name, count in (("experts", 3), ("weights", 1), ("dynamic", 1)):
        read = Reader(page(MADE[name]))
        assert sum("d" in values for _, values in read.elements) == count
    assert "<b> tuned" in Reader(page(MADE["experts"])).text


def test_colours_can_be_switched_where_alpha_varies() -> None:
    """The two buttons are there for a searched alpha only, and --by chooses the first."""
    for by_alpha, chosen in ((False, "by-variation"), (True, "by-alpha")):
        read = Reader(page(MADE["dynamic"], by_alpha=by_alpha))
        buttons = {v["id"]: "checked" in v for tag, v in read.elements if tag == "input"}
        assert buttons == {"by-variation": not by_alpha, "by-alpha": by_alpha}
        assert buttons[chosen]
    assert not any(tag == "input" for tag, _ in Reader(page(MADE["negative"])).elements)


def test_settings_and_notes_are_on_the_page() -> None:
    """Every option, every file and the meaning of the words are there."""
    made = MADE["awkward"]
    text = Reader(page(made)).text
    names = set(made.header.options) - {"trace"}
    assert all(name in text for name in (*names, *made.header.files.values(), "1.2.3", "tiny"))
    seen = {token.trace.origin for token in strongest(made, 10)}
    assert all(ORIGINS[word] in text for word in seen)


def test_pages_of_empty_replies_are_refused() -> None:
    """There is nothing to show, and a line says so."""
    with pytest.raises(UsageError, match="no tokens"):
        page(reply([]))
