"""A report as data: sections with claims, tables and figures."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..tables import Estimate, Table

_WIDTH = 100
"""Characters of a line of text in a terminal."""


@dataclass(frozen=True)
class Claim:
    """Something that is said to hold, and what was found.

    Attributes:
        text: the claim, with its source where it is a paper's.
        holds: None where the data do not decide.
        found: the numbers, with intervals.
        reason: why it does not hold, as far as is known.
    """

    text: str
    holds: bool | None
    found: str
    reason: str = ""


@dataclass(frozen=True)
class Point:
    """A point of a line; an interval is drawn where a coordinate is an estimate.

    Labels stand beside points. Where each x of 0, 1, 2 ... has one label, they name the places
    instead, which become rows.
    """

    x: float | Estimate
    y: float | Estimate
    label: str = ""


@dataclass(frozen=True)
class Line:
    """Points of one kind, in order.

    Attributes:
        name: for the legend.
        points: where they are.
        style: "line" joins the points, "points" does not, "bars" are drawn from 0, "level" is a
            horizontal line at the y of its one point, with its interval as a band.
    """

    name: str
    points: tuple[Point, ...]
    style: Literal["line", "points", "bars", "level"] = "line"


@dataclass(frozen=True)
class Figure:
    """Lines over common axes.

    Attributes:
        title: what is shown.
        x, y: names of the axes.
        lines: in the order of the legend.
        note: how to read it.
        log_y: whether the y axis is logarithmic.
    """

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    note: str = ""
    log_y: bool = False


@dataclass(frozen=True)
class Excerpt:
    """A text with marked parts: (text, strength from 0 to 1, what a reader sees on pointing)."""

    title: str
    pieces: tuple[tuple[str, float, str], ...]


@dataclass(frozen=True)
class Section:
    """What one study found.

    Attributes:
        name: of the study, as on the command line.
        title: its heading.
        intro: paragraphs: what was done and how it is judged.
        command: gives this section alone.
        settings: what else its numbers depend on.
    """

    name: str
    title: str
    intro: tuple[str, ...]
    command: str
    settings: Mapping[str, str]
    claims: tuple[Claim, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    excerpts: tuple[Excerpt, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The section as JSON's types."""
        return {
            "title": self.title,
            "intro": list(self.intro),
            "command": self.command,
            "settings": dict(self.settings),
            "claims": [asdict(claim) for claim in self.claims],
            "tables": [table.to_json() for table in self.tables],
            "figures": [_figure_json(figure) for figure in self.figures],
            "excerpts": [asdict(excerpt) for excerpt in self.excerpts],
        }

    def to_text(self) -> str:
        """The section as it is read in a terminal."""
        intro = [_filled(text, _WIDTH) for text in self.intro]
        parts = [f"{self.title}\n{'=' * len(self.title)}", *intro]
        parts += [_claim_text(claim) for claim in self.claims]
        parts += [table.to_text() for table in self.tables]
        return "\n\n".join(parts)


def verdict(claim: Claim) -> str:
    """Whether it holds, in a few words."""
    words = {True: "holds", False: "does not hold here", None: "not decided"}
    return words[claim.holds]


def _filled(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_on_hyphens=False)


def _claim_text(claim: Claim) -> str:
    parts = [claim.text, f"{verdict(claim)}: {claim.found}", claim.reason]
    lines = [_filled(part, _WIDTH - 2) for part in parts if part]
    return "* " + textwrap.indent("\n".join(lines), "  ")[2:]


def _number(value: float | Estimate) -> Any:
    return value.to_json() if isinstance(value, Estimate) else value


def _figure_json(figure: Figure) -> dict[str, Any]:
    lines = [
        {
            "name": line.name,
            "points": [
                {"x": _number(p.x), "y": _number(p.y), "label": p.label} for p in line.points
            ],
        }
        for line in figure.lines
    ]
    return {"title": figure.title, "x": figure.x, "y": figure.y, "lines": lines}


@dataclass(frozen=True)
class Report:
    """All sections of one run.

    Attributes:
        facts: of the machine and the versions.
        times: what the clock said: differs from run to run.
        sections: in order.
    """

    facts: Mapping[str, str]
    times: Mapping[str, str]
    sections: tuple[Section, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON's types."""
        sections = {section.name: section.to_json() for section in self.sections}
        return {"facts": dict(self.facts), "times": dict(self.times), "sections": sections}
