"""`eftlocal eval`: the group of its studies and harnesses."""

from __future__ import annotations

import click

from .lazy import LazyGroup

_STUDIES = "eftlocal.cli.eval_studies"
_OWN = "eftlocal.cli.eval_own"
COMMANDS = {
    "all": (_STUDIES, "All studies of the embedded family, in one report."),
    "scale": (_STUDIES, "What the scale of pre-training and of tuning give: the main table."),
    "frontier": (_STUDIES, "Refusing against answering, small and up-scaled."),
    "alpha": (_STUDIES, "Alpha fixed, searched and held; with one expert and several."),
    "speculation": (_OWN, "Drafting: acceptance, speed, and equal texts."),
    "divergence": (_OWN, "The few tokens where fusing changes something."),
    "quantization": (_OWN, "Which of the three models needs the bits."),
    "tasks": ("eftlocal.cli.eval_tasks", "Tasks of lm-evaluation-harness, on any model entry."),
    "judge": ("eftlocal.cli.eval_judge", "Open answers, judged by a model behind an API."),
}

_EPILOG = """\b
Examples:
  eftlocal eval all --html report.html
  eftlocal eval scale
  eftlocal eval frontier --json > frontier.json
  eftlocal eval quantization -m atlas
  eftlocal eval tasks -m atlas --tasks atlas

Results are kept by content (models, options, questions) in ~/.cache/eftlocal/eval: what was
stopped goes on where it was, and what is there already is not computed again.
"""


@click.group(cls=LazyGroup, table=COMMANDS, epilog=_EPILOG)
def eval() -> None:
    """Reproduce the papers' claims on this machine, and evaluate models on real tasks.

    The studies need nothing but the embedded family and some minutes. Every number comes with its
    interval, and every claim with a verdict.
    """
