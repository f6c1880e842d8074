"""The tables of scores, through eftlocal on the packaged GGUFs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .courses import FIELDS
from .judge import Reply, Score, frontier_score, recovered, score
from .questions import ExpertQuestion, FrontierQuestion, Question, read_questions

MAX_TOKENS = 64
LAMBDAS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0)


class Skipped(Exception):
    """A way of asking that cannot run a system says why."""


@dataclass(frozen=True)
class System:
    """One row of a table: GGUF names, one tuned and reference for each expert, and options."""

    title: str
    base: str
    tuned: tuple[str, ...]
    reference: tuple[str, ...] = ("small",)
    alpha: float | str = 1.0
    weights: tuple[float, ...] | None = None
    top_p: float | None = None

    @property
    def all_weights(self) -> tuple[float, ...]:
        """One weight per expert: equal shares where none are given."""
        return self.weights or (1 / len(self.tuned),) * len(self.tuned)

    @property
    def options(self) -> dict[str, Any]:
        """What eftlocal is told; files of several experts are named by their stems."""
        options: dict[str, Any] = {"alpha": self.alpha, "temperature": 0, "max_tokens": MAX_TOKENS}
        if self.weights is not None:
            options["weight"] = dict(zip(self.tuned, self.weights, strict=True))
        if self.top_p is not None:
            options["upscale_top_p"] = self.top_p
        return options


CHAT = ("small-chat",)
FUSED = System("fused, alpha 1", "large", CHAT)
SYSTEMS = (
    System("small-chat (floor)", "small-chat", CHAT, CHAT),
    System("large, base", "large", CHAT, alpha=0.0),  # it has no template of its own
    System("fused, alpha 0.5", "large", CHAT, alpha=0.5),
    FUSED,
    System("fused, dynamic alpha", "large", CHAT, alpha="dynamic"),
    System("fused, alpha from the grid", "large", CHAT, alpha="grid"),
    System("fused, one-sided", "large", CHAT, alpha="one-sided"),
    System("fused, alpha 1, top-p filter 0.95", "large", CHAT, top_p=0.95),
    System("fused, alpha 1, top-p filter 0.99", "large", CHAT, top_p=0.99),
    System("fused, dynamic, top-p filter 0.95", "large", CHAT, alpha="dynamic", top_p=0.95),
    System("down-scaled, alpha 1", "small", ("large-chat",), ("large",)),
    System("large-chat (ceiling)", "large-chat", ("large-chat",), ("large-chat",)),
)
FLOOR, CEILING = SYSTEMS[0], SYSTEMS[-1]

FRONTIER = System("", "large", ("small-open", "small-careful"), ("small", "small"))
EXPERTS = tuple(f"small-{field}" for field in FIELDS)
TOGETHER = System("all, 1/3 each", "large", EXPERTS, ("small",) * len(EXPERTS))
EXPERT_SYSTEMS = (
    System("small", "small", EXPERTS[:1], alpha=0.0),
    System("large", "large", EXPERTS[:1], alpha=0.0),
    *(System(f"{name}, not up-scaled", "small", (name,)) for name in EXPERTS),
    *(System(f"{name}, up-scaled", "large", (name,)) for name in EXPERTS),
    TOGETHER,
    replace(TOGETHER, title="all, dynamic", alpha="dynamic"),
    replace(TOGETHER, title="all, joint", alpha="joint"),
    replace(TOGETHER, title="all, weight 1 each", weights=(1.0,) * len(EXPERTS)),
    replace(
        TOGETHER,
        title="all, weight 1 each, dynamic",
        alpha="dynamic",
        weights=(1.0,) * len(EXPERTS),
    ),
)
Ask = Callable[[System, Sequence[Question]], list[Reply]]
Say = Callable[[str], None]


def ask_all(system: System, questions: Sequence[Question], family: Path) -> list[Reply]:
    """Every question as a chat of its own, greedy, through eftlocal."""
    import eftlocal

    replies = []
    with eftlocal.load(
        base=family / f"{system.base}.gguf",
        tuned=[family / f"{name}.gguf" for name in system.tuned],
        reference=[family / f"{name}.gguf" for name in system.reference],
        threads=1,
    ) as model:
        for question in questions:
            messages = [{"role": "user", "content": question.question}]
            result = model.chat(messages, **system.options)
            replies.append(Reply(result.text, result.finish_reason == "stop"))
    return replies


def table(scores: dict[System, Score]) -> str:
    """The scores as Markdown; PGR where something is fused."""
    lines = ["| system | factuality | manners | PGR |", "|---|---|---|---|"]
    for system, value in scores.items():
        fused = (
            (system.base,) != system.tuned
            and system.alpha
            and FLOOR in scores
            and CEILING in scores
        )
        pgr = f"{recovered(value, scores[FLOOR], scores[CEILING]):.2f}" if fused else ""
        lines.append(f"| {system.title} | {value.factuality:.3f} | {value.manners:.3f} | {pgr} |")
    return "\n".join(lines)


def say_systems(family: Path, ask: Ask, say: Say) -> None:
    """The table of the 300 questions."""
    questions = read_questions(family / "questions.jsonl", Question)
    say(table({system: score(ask(system, questions), questions) for system in SYSTEMS}))


def say_frontier(family: Path, ask: Ask, say: Say) -> None:
    """Refusals against answers along lambda, with the small and the large base."""
    questions = read_questions(family / "frontier.jsonl", FrontierQuestion)
    say("| base | lambda | refused | answered | right | manners |\n|---|---|---|---|---|---|")
    for base in ("small", "large"):
        for share in LAMBDAS:
            system = replace(FRONTIER, base=base, weights=(share, 1 - share))
            found = frontier_score(ask(system, questions), questions)
            say(
                f"| {base} | {share:g} | {found.refused:.2f} | {found.answered:.2f} "
                f"| {found.right:.2f} | {found.manners:.2f} |"
            )


def say_experts(family: Path, ask: Ask, say: Say) -> None:
    """Factuality and manners of the experts, field by field."""
    questions = read_questions(family / "experts.jsonl", ExpertQuestion)
    fields = list(dict.fromkeys(q.field for q in questions))
    say(f"| system (factuality / manners) | {' | '.join(fields)} |\n|---{'|---' * len(fields)}|")
    for system in EXPERT_SYSTEMS:
        try:
            replies = ask(system, questions)
        except Skipped as error:
            say(f"| {system.title} | {error} |")
            continue
        pairs = list(zip(replies, questions, strict=True))
        cells = []
        for field in fields:
            own = [(r, q) for r, q in pairs if q.field == field]
            value = score([r for r, _ in own], [q for _, q in own])
            cells.append(f"{value.factuality:.2f} / {value.manners:.2f}")
        say(f"| {system.title} | {' | '.join(cells)} |")


def print_report(family: Path, ask: Ask | None = None, say: Say = print) -> None:
    """Run all systems and print the three tables; `ask` is another way than through eftlocal."""

    def ask_eftlocal(system: System, questions: Sequence[Question]) -> list[Reply]:
        return ask_all(system, questions, family)

    for part in (say_systems, say_frontier, say_experts):
        part(family, ask or ask_eftlocal, say)
        say("")
