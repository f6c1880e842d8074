"""A report as one HTML page: no scripts, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from string import Template

from ...errors import UsageError
from ...tables import Table
from ..report import Claim, Excerpt, Figure, Report, Section, verdict

_LEVELS = 4
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
_KINDS = {True: "holds", False: "fails", None: "undecided"}


def check_packages() -> None:
    """Find out before anything is computed whether a page can be made.

    Raises:
        UsageError: where matplotlib is missing.
    """
    try:
        from . import plots  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        raise UsageError(
            "eftlocal eval --html needs more packages: pip install 'eftlocal[eval]'"
        ) from None


def page(report: Report) -> str:
    """The page of a report: its facts, all claims, then section after section.

    Raises:
        UsageError: as `check_packages` does.
    """
    check_packages()
    template = Template((files(__package__) / "page.html").read_text(encoding="utf-8"))
    sections = report.sections
    title = f"eftlocal eval {sections[0].name}" if len(sections) == 1 else "eftlocal eval"
    text = template.substitute(
        title=escape(title),
        facts=_facts(report.facts),
        summary=_summary(sections),
        contents=_contents(sections) if len(sections) > 1 else "",
        sections="\n".join(_section(section, i) for i, section in enumerate(sections)),
        times=_times(report.times),
    )
    return text.translate(_CONTROLS)


def _facts(facts: Mapping[str, str]) -> str:
    return "\n".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.items()
    )


def _summary(sections: tuple[Section, ...]) -> str:
    """All claims of all sections as one table."""
    rows = []
    counts = dict.fromkeys(_KINDS, 0)
    for i, section in enumerate(sections):
        for claim in section.claims:
            counts[claim.holds] += 1
            rows.append(
                f"<tr><td>{escape(claim.text)} "
                f'<a href="#s{i}">{escape(section.name)}</a></td>'
                f'<td class="{_KINDS[claim.holds]}">{verdict(claim)}</td>'
                f"<td>{escape(claim.found)}</td><td>{escape(claim.reason)}</td></tr>"
            )
    if not rows:
        return ""
    names = ("claim", "verdict", "found", "reason")
    head = "".join(f"<th>{name}</th>" for name in names)
    words = ", ".join(
        f'<span class="{kind}">{verdict(Claim("", holds, ""))}: {counts[holds]}</span>'
        for holds, kind in _KINDS.items()
    )
    return (
        f"<h2>Claims</h2>\n<p>Of {len(rows)}, {words}.</p>\n"
        f'<div class="wide"><table class="claims"><thead><tr>{head}</tr></thead>\n<tbody>'
        + "\n".join(rows)
        + "</tbody></table></div>"
    )


def _contents(sections: tuple[Section, ...]) -> str:
    entries = "\n".join(
        f'<li><a href="#s{i}">{escape(section.title)}</a></li>'
        for i, section in enumerate(sections)
    )
    return f"<h2>Contents</h2>\n<nav><ol>\n{entries}\n</ol></nav>"


def _section(section: Section, index: int) -> str:
    figures = [_figure(figure, f"s{index}f{place}") for place, figure in enumerate(section.figures)]
    claims = "\n".join(map(_claim, section.claims))
    parts = [
        f'<section id="s{index}">\n<h2>{escape(section.title)}</h2>',
        *(f"<p>{escape(paragraph)}</p>" for paragraph in section.intro),
        f"<pre><code>{escape(section.command)}</code></pre>",
        f'<div class="wide"><table class="facts">{_facts(section.settings)}</table></div>'
        if section.settings
        else "",
        f'<ul class="found">\n{claims}\n</ul>' if claims else "",
        *map(_table, section.tables),
        *figures,
        *map(_excerpt, section.excerpts),
    ]
    return "\n".join([*filter(None, parts), "</section>"])


def _claim(claim: Claim) -> str:
    kind = _KINDS[claim.holds]
    why = f'<p class="soft">{escape(claim.reason)}</p>' if claim.reason else ""
    return (
        f'<li class="{kind}"><p>{escape(claim.text)}</p>'
        f'<p><span class="{kind}">{verdict(claim)}</span> {escape(claim.found)}</p>{why}</li>'
    )


def _table(table: Table) -> str:
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in table.notes)
    return f'<h3>{escape(table.title)}</h3>\n<div class="wide data">{table.to_html()}</div>{notes}'


def _figure(figure: Figure, key: str) -> str:
    from .plots import draw

    note = f"<figcaption>{escape(figure.note)}</figcaption>" if figure.note else ""
    return (
        f"<figure><h3>{escape(figure.title)}</h3>\n"
        f'<div class="wide">{draw(figure, key)}</div>{note}</figure>'
    )


def _excerpt(excerpt: Excerpt) -> str:
    pieces = []
    for text, strength, title in excerpt.pieces:
        level = min(round(max(strength, 0.0) * _LEVELS + 0.25), _LEVELS)
        if level or title:
            said = f' title="{escape(title)}"' if title else ""
            pieces.append(f'<mark class="v{level}"{said}>{escape(text)}</mark>')
        else:
            pieces.append(escape(text))
    return f'<h3>{escape(excerpt.title)}</h3>\n<div class="excerpt">{"".join(pieces)}</div>'


def _times(times: Mapping[str, str]) -> str:
    if not times:
        return ""
    rows = _facts(times)
    return f'<h2>Times</h2>\n<div class="wide"><table class="facts times">{rows}</table></div>'
