"""Alpha fixed, searched, held: what each way is worth with one expert and with several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..tables import Cell, Column, Table
from .measures import INTERVALS, JUDGES, Q, above, asked, bootstrap, judge, thinned
from .questions import ExpertQuestion, Question
from .report import Claim, Figure, Line, Point, Section
from .scale import CEILING, UP
from .statistics import Bootstrap, Judged
from .study import Setting
from .systems import Models, System, family, greedy
from .work import Work, records

FIXED = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
SEARCHED = ("dynamic", "grid", "one-sided")
INTERVALS_OF_UPDATES = (1, 10, 100, 0)
"""Every so many tokens alpha is searched anew; 0 is never after the first."""

EXPERTS = ("small-countries", "small-elements", "small-people")
TOGETHER = family("large", EXPERTS)
_ONE_EACH = dict.fromkeys(EXPERTS, 1.0)
_MEASURES = ("factuality", "manners", "both")
_WORDS = {measure: measure for measure in _MEASURES} | {"both": "right and polite replies"}
_HINDSIGHT = 0.01
_PLACES = 24
_FEWEST = 20

INTRO = (
    "A fixed alpha is one number for every token; dynamic alpha is searched for every token, so "
    "that fusing moves the base as far as tuning moved the small model (arXiv 2406.15480, equation "
    "6 in its symmetrised form). grid is that paper's 21 trial values, one-sided its derivation "
    "with one of the two divergences. Updates every 10 or 100 tokens hold alpha in between.",
    "With several experts a fixed alpha gives each of E experts alpha / E: alpha 1 is the paper's "
    "static baseline. dynamic has one active expert per token, joint an alpha for each. Seen "
    "fields are those that some expert was tuned on, unseen ones those of none.",
    f"{JUDGES} {INTERVALS}",
)


@dataclass(frozen=True)
class _Group:
    """Systems that answer the same questions.

    Attributes:
        fixed: by alpha.
        others: by what a table calls them.
    """

    fixed: Mapping[float, System]
    others: Mapping[str, System]

    @property
    def systems(self) -> tuple[System, ...]:
        """All of them."""
        return (*self.fixed.values(), *self.others.values())


def _group(models: Models, title: str, others: Mapping[str, Mapping[str, object]]) -> _Group:
    def made(name: str, options: Mapping[str, object]) -> System:
        return System(f"{title}, {name}", models, greedy(**options))

    fixed = {alpha: made(f"alpha {alpha:g}", {"alpha": alpha}) for alpha in FIXED}
    return _Group(fixed, {name: made(name, options) for name, options in others.items()})


_HELD: dict[str, Mapping[str, object]] = {
    f"dynamic, every {every} tokens" if every else "dynamic, first token only": {
        "alpha": "dynamic",
        "alpha_every": every,
    }
    for every in INTERVALS_OF_UPDATES
    if every != 1
}
_SEARCHED: dict[str, Mapping[str, object]] = {mode: {"alpha": mode} for mode in SEARCHED}
ONE = _group(UP, "one expert", {**_SEARCHED, **_HELD})
SEVERAL = _group(
    TOGETHER,
    "three experts",
    {
        **_SEARCHED,
        "joint": {"alpha": "joint"},
        **_HELD,
        "weight 1 each, alpha 1": {"alpha": 1.0, "weight": _ONE_EACH},
        "weight 1 each, dynamic": {"alpha": "dynamic", "weight": _ONE_EACH},
    },
)


class Alpha:
    """The study; see `study.Study`."""

    def work(self, setting: Setting) -> Sequence[Work]:
        """Every way to choose alpha, with one expert and with three."""
        questions = thinned("questions.jsonl", Question, setting)
        fields = thinned("experts.jsonl", ExpertQuestion, setting)
        one = [asked(system, questions) for system in (*ONE.systems, CEILING)]
        return one + [asked(system, fields) for system in SEVERAL.systems]

    def section(self, setting: Setting) -> Section:
        """Tables, lines over alpha, alpha along the text, and the claims."""
        one = _Judgements.of(ONE, thinned("questions.jsonl", Question, setting), setting)
        questions = thinned("experts.jsonl", ExpertQuestion, setting)
        several = _Judgements.of(SEVERAL, questions, setting)
        seen = np.array([question.field != "none" for question in questions])
        fields = {"seen": several.where(seen, setting), "unseen": several.where(~seen, setting)}
        texts = {"one expert": one, "three experts": several}
        tables = [_table("One expert", one)]
        tables += [_table(f"Three experts, {name} fields", own) for name, own in fields.items()]
        figures = [_over_alpha("One expert, by alpha", one)]
        figures += [_along_the_text(name, own, setting) for name, own in texts.items()]
        figures += [
            _over_alpha(f"Three experts, {name} fields, by alpha", own)
            for name, own in fields.items()
        ]
        return Section(
            name="alpha",
            title="Alpha: fixed, searched, held",
            intro=INTRO,
            command="eftlocal eval alpha",
            settings={
                "questions, one expert": str(len(one.questions)),
                "questions, seen fields": str(int(seen.sum())),
                "questions, unseen fields": str(int((~seen).sum())),
                "decoding": "greedy, at most 64 tokens, no drafts",
            },
            claims=_claims(one, fields),
            tables=tuple(tables),
            figures=tuple(figures),
        )


@dataclass(frozen=True)
class _Judgements:
    """What was judged of a group's replies: measure -> title of a system -> (Q,).

    `mean_alpha` and `mean_tokens` are those of replies with dynamic alpha.
    """

    group: _Group
    questions: Sequence[Question]
    scores: Mapping[str, Mapping[str, Judged]]
    draws: Bootstrap
    mean_alpha: float
    mean_tokens: float

    @classmethod
    def of(cls, group: _Group, questions: Sequence[Q], setting: Setting) -> _Judgements:
        scores = {
            measure: {
                system.title: judge(system, questions, setting.store, measure)
                for system in group.systems
            }
            for measure in _MEASURES
        }
        found = records(asked(group.others["dynamic"], questions), setting.store)
        alphas = [sum(alpha) for record in found for alpha in record["alphas"]]
        draws = bootstrap(questions, setting)
        mean_tokens = len(alphas) / len(found)
        return cls(group, questions, scores, draws, float(np.mean(alphas)), mean_tokens)

    def where(
        self, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]], setting: Setting
    ) -> _Judgements:
        """The same for some of the questions."""
        questions = [q for q, ok in zip(self.questions, chosen, strict=True) if ok]
        scores = {
            measure: {title: judged[chosen] for title, judged in own.items()}
            for measure, own in self.scores.items()
        }
        return replace(
            self, questions=questions, scores=scores, draws=bootstrap(questions, setting)
        )

    def best(self, measure: str) -> float:
        """The fixed alpha that is best with hindsight; of equals the smallest."""
        own = self.scores[measure]
        return max(FIXED, key=lambda alpha: (own[self.group.fixed[alpha].title].mean(), -alpha))


def _table(title: str, judged: _Judgements) -> Table:
    named = {f"alpha {alpha:g}": system for alpha, system in judged.group.fixed.items()}
    dynamic = judged.group.others["dynamic"].title
    rows: list[tuple[Cell, ...]] = []
    for name, system in {**named, **judged.group.others}.items():
        own = [judged.scores[measure][system.title] for measure in _MEASURES]
        behind = None
        if system.title != dynamic:
            behind = judged.draws.difference(judged.scores["both"][dynamic], own[-1])
        rows.append((name, *map(judged.draws.share, own), behind))
    columns = (
        Column("alpha", "alpha"),
        *(Column(measure, measure, 3) for measure in _MEASURES),
        Column("dynamic_minus_this", "dynamic minus this, both", 3),
    )
    best = ", ".join(f"{judged.best(measure):g} by {measure}" for measure in _MEASURES)
    return Table(title, columns, tuple(rows), (f"Best fixed alpha with hindsight: {best}.",))


def _claims(one: _Judgements, fields: Mapping[str, _Judgements]) -> tuple[Claim, ...]:
    return (
        *(_not_worse(one, measure, "one expert") for measure in ("both", "factuality", "manners")),
        _not_worse(fields["seen"], "both", "three experts, on seen fields,"),
        _better_than_static(fields["seen"], "seen"),
        _better_than_static(fields["unseen"], "unseen"),
        _better_than_one_each(fields["seen"]),
        _holding(one),
    )


def _not_worse(judged: _Judgements, measure: str, who: str) -> Claim:
    own = judged.scores[measure]
    best = judged.best(measure)
    difference = judged.draws.difference(
        own[judged.group.others["dynamic"].title], own[judged.group.fixed[best].title]
    )
    text = (
        f"With {who} dynamic alpha is less than a point worse in {_WORDS[measure]} than the best "
        "fixed alpha chosen with hindsight."
    )
    claim = above(text, f"dynamic minus alpha {best:g}:", difference, -_HINDSIGHT)
    if claim.holds:
        return claim
    searched = f"Dynamic alpha is {judged.mean_alpha:.2f} on average"
    if len(judged.group.systems[0].models.files["tuned"]) == 1:
        reason = (
            "Lower alphas keep more of what the base knows, higher ones more of the manners. "
            f"{searched}: its loss asks for the shift that tuning made in the small model, and "
            "does not know which of the two is asked for."
        )
    else:
        reason = (
            f"{searched}, on one expert per token. A likely reason: its loss sums over all "
            "experts, of which mostly one has something to say, so it asks for less than that "
            "one's own shift."
        )
    return replace(claim, reason=reason)


def _better_than_static(judged: _Judgements, name: str) -> Claim:
    both = judged.scores["both"]
    return above(
        f"With three experts, dynamic alpha is better than static shares of 1/3 on {name} fields "
        "(arXiv 2406.15480).",
        "right and polite replies, dynamic minus static",
        judged.draws.difference(
            both[judged.group.others["dynamic"].title], both[judged.group.fixed[1.0].title]
        ),
    )


def _better_than_one_each(judged: _Judgements) -> Claim:
    both = judged.scores["both"]
    names = ("weight 1 each, dynamic", "weight 1 each, alpha 1")
    searched, fixed = (both[judged.group.others[name].title] for name in names)
    return above(
        "With three experts of weight 1 each, dynamic alpha is better than alpha 1 on seen fields.",
        "right and polite replies, dynamic minus alpha 1",
        judged.draws.difference(searched, fixed),
    )


def _holding(judged: _Judgements) -> Claim:
    both = judged.scores["both"]
    name = "dynamic, every 100 tokens"
    difference = judged.draws.difference(
        both[judged.group.others["dynamic"].title], both[judged.group.others[name].title]
    )
    claim = above(
        "Searching alpha for every token is better than every 100 tokens (arXiv 2406.15480).",
        "right and polite replies, every token minus every 100",
        difference,
    )
    reason = (
        f"Replies have {judged.mean_tokens:.0f} tokens on average: every 100 tokens means once, at "
        "the first token."
    )
    return claim if claim.holds else replace(claim, reason=reason)


def _over_alpha(title: str, judged: _Judgements) -> Figure:
    lines = []
    for measure in _MEASURES:
        own = judged.scores[measure]
        points = [
            Point(alpha, judged.draws.share(own[s.title]))
            for alpha, s in judged.group.fixed.items()
        ]
        level = Point(0.0, judged.draws.share(own[judged.group.others["dynamic"].title]))
        lines.append(Line(measure, tuple(points)))
        lines.append(Line(f"{measure}, dynamic", (level,), "level"))
    return Figure(title, "alpha, fixed", "share of questions", tuple(lines))


def _along_the_text(name: str, judged: _Judgements, setting: Setting) -> Figure:
    """Mean alpha by place in the reply, for the ways of searching; of experts the sum."""
    questions = judged.questions
    lines = []
    for mode in SEARCHED:
        found = records(asked(judged.group.others[mode], questions), setting.store)
        texts = [[sum(alpha) for alpha in record["alphas"]] for record in found]
        points = []
        for place in range(_PLACES):
            reached = [i for i, text in enumerate(texts) if len(text) > place]
            if len(reached) < _FEWEST:
                break
            draws = bootstrap([questions[i] for i in reached], setting)
            points.append(Point(place, draws.mean(np.array([texts[i][place] for i in reached]))))
        lines.append(Line(mode, tuple(points)))
    return Figure(
        f"Alpha along the reply, {name}",
        "token of the reply, from 0",
        "mean alpha",
        tuple(lines),
        f"Places that at least {_FEWEST} replies reach.",
    )
