"""A benchmark as one HTML page: no scripts, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from string import Template

from .plot import plot
from .report import Report, Table


def page(report: Report) -> str:
    """The page of a report."""
    template = Template((files(__package__) / "page.html").read_text(encoding="utf-8"))
    facts = "\n".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in report.facts.items()
    )
    tables = "\n".join(_section(table) for tables in report.tables.values() for table in tables)
    title = f"eftlocal bench: {report.facts.get('model', '')}"
    return template.substitute(title=escape(title), facts=facts, tables=tables)


def _section(table: Table) -> str:
    notes = "".join(f"<p class='soft'>{escape(note)}</p>" for note in table.notes)
    chart = ""
    if table.chart is not None:
        chart = (
            f"<figure><figcaption>{escape(table.chart.title)}</figcaption>"
            f'<div class="wide">{plot(table.chart)}</div></figure>'
        )
    return (
        f"<section><h2>{escape(table.title)}</h2>\n"
        f'<div class="wide">{table.to_html()}</div>\n{notes}{chart}'
        "</section>"
    )
