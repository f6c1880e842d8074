"""Runs tasks on a fused model and on what it is compared with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ... import __version__
from ...llama.library import llama_cpp_version
from ...registry import ROLES
from ...tables import Table
from ...textfiles import writing
from ..parts import CEILING, TUNED, Lineup, Part, named
from ..store import Store
from ..systems import PLAIN, Models
from ..work import Progress
from .arguments import Setup
from .harness import Manner, Tasks, quiet
from .model import EftlocalLM
from .results import FEWEST_DOCUMENTS, Measured, tables


@dataclass(frozen=True)
class Setting:
    """What to evaluate, on what, and how.

    Attributes:
        models: the fused model.
        options: of its generations.
        names: of the tasks; see `harness.Tasks`.
        include: folders with more tasks.
        manner: how they are asked.
        parts: whether each model is asked alone, too.
        ceiling: a file that is asked alone as the ceiling.
        add_bos: put BOS before every text.
        reuse: score continuations alone, see `requests.Score`.
        verbose: let the harness say what it wants.
        command: gives the findings again.
    """

    models: Models
    options: Mapping[str, Any]
    names: tuple[str, ...]
    include: tuple[Path, ...] = ()
    manner: Manner = field(default_factory=Manner)
    parts: bool = False
    ceiling: str | None = None
    add_bos: bool = False
    reuse: bool = False
    verbose: bool = False
    command: str = ""


@dataclass(frozen=True)
class Findings:
    """What was found out.

    Attributes:
        setting: what was asked.
        measured: every system, and what the harness says of it.
        tables: per task or group, one row per system.
        members: the same for tasks that belong to a group.
    """

    setting: Setting
    measured: tuple[Measured, ...]
    tables: tuple[Table, ...]
    members: tuple[Table, ...]

    def to_text(self) -> str:
        """The tables, what had to be changed so that prompts fit, and how to get them again."""
        return "\n\n".join([*(table.to_text() for table in self.tables), *self._notes()])

    @property
    def _versions(self) -> dict[str, str]:
        return {
            "eftlocal": __version__,
            "llama-cpp-python": llama_cpp_version,
            "lm-eval": version("lm_eval"),
        }

    @property
    def _models(self) -> dict[str, str]:
        models = self.setting.models
        return named(models.entry, models.files, self.setting.ceiling)

    def _notes(self) -> list[str]:
        texts = {
            "truncated": "prompts were cut from the left to fit the context",
            "shortened": "conversations lost their first examples to fit the context",
            "merged": "system texts were put before the first question: the template has no place",
        }
        notes = [
            f"{one.part.system.title}: {one.changes[name]} {text}"
            for one in self.measured
            for name, text in texts.items()
            if one.changes[name]
        ]
        notes += [f"{name}: {value}" for name, value in self._models.items()]
        roles = [one.part.role for one in self.measured]
        if {"tuned", "ceiling"} <= set(roles) and roles.count("tuned") == 1:
            notes.append(
                f"PGR: the share of the gap between {TUNED} and {CEILING} that is closed; without "
                f"an interval below {FEWEST_DOCUMENTS} documents"
            )
        notes.append(
            "Intervals: 95 %; Wilson's for shares, else a bootstrap over documents; none "
            "where these are few, or all draws agree"
        )
        manner = self.setting.manner
        notes.append(f"Seeds: {', '.join(f'{k} {v}' for k, v in manner.seeds.items())}")
        notes.append(f"Versions: {', '.join(f'{k} {v}' for k, v in self._versions.items())}")
        notes += [f"Again: {self.setting.command}"] if self.setting.command else []
        return ["\n".join(notes)]

    def to_json(self) -> dict[str, Any]:
        """All numbers, those of the harness itself included."""
        manner = asdict(self.setting.manner)
        return {
            "versions": self._versions,
            "command": self.setting.command,
            "seeds": self.setting.manner.seeds,
            "tasks": list(self.setting.names),
            "settings": {
                **self._models,
                **manner,
                "add_bos": self.setting.add_bos,
                "reuse_prompts": self.setting.reuse,
            },
            "tables": [table.to_json() for table in self.tables],
            "members": [table.to_json() for table in self.members],
            "systems": [self._system(one) for one in self.measured],
        }

    def _system(self, one: Measured) -> dict[str, Any]:
        shown = ("results", "versions", "n-shot", "n-samples", "higher_is_better")
        return {
            "title": one.part.system.title,
            "role": one.part.role,
            **{name: one.content[name] for name in ("files", "runtime", "options")},
            "changes": dict(one.changes),
            "lm_eval": {name: one.results[name] for name in shown},
        }


def run(setting: Setting, store: Store, progress: Progress) -> Findings:
    """Ask all systems all tasks; what the store knows is not asked again.

    Raises:
        EftlocalError: where tasks or models cannot be loaded, or a request fails.
    """
    with (
        TemporaryDirectory(prefix="eftlocal-eval-") as folder,
        quiet(setting.names, setting.verbose),
    ):
        lineup = Lineup(
            setting.models,
            Path(folder),
            {**PLAIN, **setting.options},
            ROLES if setting.parts else (),
            setting.ceiling,
            setting.manner.chat,
        )
        lineup.check()
        tasks = Tasks(setting.names, setting.include, setting.manner)
        n_systems = 1 + len(lineup.alone) + (setting.ceiling is not None)
        tally = _Tally(progress, n_systems)
        fused, n_ctx = _ask(lineup.fused(), setting, tasks, store, tally)
        others = lineup.others(n_ctx)
        tally.n_systems = 1 + len(others)
        measured = [fused]
        measured += [_ask(part, setting, tasks, store, tally)[0] for part in others]
        aggregates = {name: task.aggregation() for name, task in tasks.tasks.items()}
        shown, members = tables(measured, aggregates, setting.manner.seeds["bootstrap"])
    return Findings(setting, tuple(measured), tuple(shown), tuple(members))


def _ask(
    part: Part, setting: Setting, tasks: Tasks, store: Store, tally: _Tally
) -> tuple[Measured, int]:
    """What the harness finds out about a system, and the length of its context."""
    tally.begin(part.system.title)
    setup = Setup(
        part.system,
        store,
        add_bos_token=setting.add_bos,
        reuse_prompts=setting.reuse,
        on_request=tally.on_request,
    )
    model = EftlocalLM(setup=setup)
    try:
        results = tasks.ask(model)
        n_ctx = model.model.n_ctx
    finally:
        model.close()
    return Measured(part, results, part.system.content, model.changes.to_json()), n_ctx


class _Tally:
    """Requests that are done, of all systems together; each has as many as the first one."""

    def __init__(self, progress: Progress, n_systems: int) -> None:
        self.n_systems = n_systems
        self._progress = progress
        self._title = ""
        self._begun = 0
        self._before = self._kinds = self._last = self._most = 0

    def begin(self, title: str) -> None:
        """Begin with the next system."""
        self._before += self._kinds + self._last
        self._kinds = self._last = 0
        self._begun += 1
        self._title = title

    def on_request(self, done: int, total: int) -> None:
        """See `arguments.OnRequest`; a kind's total is done when another one begins."""
        if done < self._last or (done == 0 and self._last):
            self._kinds, self._last = self._kinds + self._last, 0
        self._last = done
        self._most = max(self._most, self._kinds + total)
        left = self.n_systems - self._begun
        whole = self._before + self._most * (left + 1)
        self._progress(self._before + self._kinds + done, whole, self._title)


def write_samples(findings: Findings, path: Path) -> None:
    """Write every document with every system's answers, one JSON object per line.

    Raises:
        EftlocalError: where it cannot be written.
    """
    from lm_eval.utils import handle_non_serializable

    with writing(path), path.open("w", encoding="utf-8") as file:
        for one in findings.measured:
            for task, samples in one.results["samples"].items():
                for sample in samples:
                    line = {"system": one.part.system.title, "task": task, **sample}
                    text = json.dumps(line, default=handle_non_serializable, ensure_ascii=False)
                    file.write(text + "\n")
