"""What judges found, as a section of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...tables import Cell, Column, Estimate, Table
from ..parts import CEILING, TUNED
from ..report import Section
from .agreement import nominal_kappa, quadratic_kappa, spearman
from .asks import pair_asks
from .roles import Role
from .scores import Contest, Judge, prompt_share

INTRO = (
    "Language models, or whoever gave the verdicts, judged open replies in the three roles of the "
    "EFT paper (arXiv 2310.12962, section 4): how likely a demanding user is satisfied "
    "(helpfulness), how many statements are wrong (factuality), and how likely harm comes of the "
    "reply (harmlessness). A judge gives its reason before its verdict, and is not told which "
    "system wrote what.",
    "Brackets hold 95 % intervals: of a bootstrap that draws prompts with all their turns, and "
    "Wilson's for shares, with the number of prompts. An answer of a judge that could not be read "
    "was asked for once more; one that could not be read then, either, is counted as no verdict "
    "and is part of no other number, and so is a question that a judge refuses, because of its "
    "filter or its length.",
)


def section(
    contest: Contest, judges: Sequence[Judge], settings: Mapping[str, str], command: str
) -> Section:
    """All tables of the judges, and their agreement where there are two."""
    tables = []
    for judge in judges:
        tables += [_scores(contest, judge), *_by_category(contest, judge)]
        if contest.pairs:
            tables.append(_pairs(contest, judge))
    if len(judges) == 2:
        tables.append(_agreement(contest, judges[0], judges[1]))
    tables.append(_missing(contest, judges))
    return Section(
        name="judge",
        title="Open answers, judged",
        intro=INTRO,
        command=command,
        settings=dict(settings),
        tables=tuple(tables),
    )


def _scores(contest: Contest, judge: Judge) -> Table:
    """A row per system; PGR of the fused one where floor and ceiling are there."""
    has_gap = TUNED in contest.titles and CEILING in contest.titles
    columns = [Column("system", "system"), Column("replies", "replies")]
    for role in contest.roles:
        columns.append(Column(role.name, f"{role.name}: {role.measure}", 2))
    for role in contest.roles if has_gap else ():
        columns.append(Column(f"pgr_{role.name}", f"PGR, {role.name}", 2))
    rows = []
    for title in contest.titles:
        scores = [contest.scores(judge, title, role) for role in contest.roles]
        n_replies = sum(not exchange.error for exchange in contest.replies[title])
        row: list[Cell] = [title, float(n_replies), *(_shown(contest.mean(own)) for own in scores)]
        for role, own in zip(contest.roles if has_gap else (), scores, strict=False):
            ends = [contest.scores(judge, end, role) for end in (TUNED, CEILING)]
            is_fused = title == contest.titles[0]
            row.append(contest.recovered(own, *ends) if is_fused else None)
        rows.append(tuple(row))
    notes: tuple[str, ...] = ()
    if has_gap:
        notes = (f"PGR: the share of the gap between {TUNED} and {CEILING} that fusing closes.",)
    return Table(f"Scores by {judge.title}", tuple(columns), tuple(rows), notes)


def _shown(mean: Estimate) -> Cell:
    """A mean; of one prompt the number alone, because nothing says how far others would be off."""
    return mean.value if np.isnan(mean.low) and not np.isnan(mean.value) else mean


def _by_category(contest: Contest, judge: Judge) -> list[Table]:
    """Per role a row per category; nothing where there is only one."""
    categories = list(dict.fromkeys(contest.categories.tolist()))
    if len(categories) < 2:
        return []
    tables = []
    for role in contest.roles:
        scores = [contest.scores(judge, title, role) for title in contest.titles]
        rows = []
        for category in categories:
            among = contest.categories == category
            n_prompts = float(len(np.unique(contest.clusters[among])))
            means = [_shown(contest.mean(own, among)) for own in scores]
            rows.append((category or "(none)", n_prompts, *means))
        columns = [Column("category", "category"), Column("prompts", "prompts")]
        columns += [Column(title.replace(" ", "_"), title, 2) for title in contest.titles]
        name = f"{role.name.capitalize()} by category: {role.measure}; {judge.title}"
        tables.append(Table(name, tuple(columns), tuple(rows)))
    return tables


def _pairs(contest: Contest, judge: Judge) -> Table:
    """The first system against each other one."""
    first, *others = contest.titles
    rows: list[tuple[Cell, ...]] = []
    for role in contest.roles:
        for title in others:
            pairs = contest.pair_outcomes(judge, title, role)
            there = np.isfinite(pairs.outcome)
            shares = [
                contest.share(np.where(there, pairs.outcome == side, np.nan)) for side in (1, 0, -1)
            ]
            rows.append(
                (
                    role.name,
                    title,
                    float(there.sum()),
                    *shares,
                    contest.share(pairs.inconsistent),
                    contest.share(pairs.shown_first),
                )
            )
    columns = (
        Column("role", "role"),
        Column("against", f"{first} against"),
        Column("pairs", "pairs"),
        Column("wins", "wins", 2),
        Column("ties", "ties", 2),
        Column("losses", "losses", 2),
        Column("inconsistent", "orders disagree", 2),
        Column("shown_first", "for the one shown first", 2),
    )
    notes = (
        "Every pair was judged in both orders; it is won where both say so, else it is a tie. The "
        "same two replies are a tie without asking.",
        "The last column is about verdicts that are no tie: 0.5 has no bias for a position.",
    )
    return Table(f"Pairs by {judge.title}", columns, tuple(rows), notes)


def _agreement(contest: Contest, one: Judge, other: Judge) -> Table:
    """Per role and form: on the questions that both have a verdict on."""
    rows: list[tuple[Cell, ...]] = []
    for role in contest.roles:
        pairs = [
            [contest.scores(judge, title, role) for title in contest.titles]
            for judge in (one, other)
        ]
        first, second = (np.concatenate(own) for own in pairs)
        clusters = np.tile(contest.clusters, len(contest.titles))
        both = np.isfinite(first) & np.isfinite(second)
        if both.any():
            draws = contest.draws_over(clusters[both])
            a, b = first[both], second[both]
            equal = (np.abs(a - b) <= role.tolerance).astype(np.float64)
            raw = prompt_share(equal, clusters[both])
            kappa, ranks = quadratic_kappa(a, b, draws), spearman(a, b, draws)
            rows.append((role.name, "score", float(len(a)), raw, kappa, ranks))
        if contest.pairs:
            rows += _pair_agreement(contest, one, other, role)
    columns = (
        Column("role", "role"),
        Column("form", "form"),
        Column("both", "questions"),
        Column("agreement", "agreement", 2),
        Column("kappa", "Cohen's kappa", 2),
        Column("spearman", "Spearman", 2),
    )
    notes = (
        "Scores agree where percentages are at most 10 apart, or numbers of errors equal; their "
        "kappa has quadratic weights. Pairs agree where the verdicts are the same.",
    )
    return Table(f"Agreement of {one.title} and {other.title}", columns, tuple(rows), notes)


def _pair_agreement(
    contest: Contest, one: Judge, other: Judge, role: Role
) -> list[tuple[Cell, ...]]:
    """Both orders of all pairs that both judges have a verdict on."""
    start, *others = contest.titles
    first, second, of = [], [], []
    for title in others:
        pairs = zip(contest.replies[start], contest.replies[title], strict=True)
        for pair, cluster in zip(pairs, contest.clusters.tolist(), strict=True):
            for ask in pair_asks((start, title), pair, role) or ():
                a, b = one.verdicts.get(ask.key), other.verdicts.get(ask.key)
                if a is not None and b is not None:
                    first.append(str(a.value))
                    second.append(str(b.value))
                    of.append(cluster)
    if not first:
        return []
    clusters = np.array(of)
    equal = np.array([a == b for a, b in zip(first, second, strict=True)], dtype=np.float64)
    kappa = nominal_kappa(first, second, contest.draws_over(clusters))
    raw = prompt_share(equal, clusters)
    return [(role.name, "pair", float(len(equal)), raw, kappa, None)]


def _missing(contest: Contest, judges: Sequence[Judge]) -> Table:
    """How many questions there were, and how many have no verdict."""
    rows: list[tuple[Cell, ...]] = [
        (judge.title, *map(float, contest.n_asked(judge))) for judge in judges
    ]
    columns = (
        Column("judge", "judge"),
        Column("questions", "questions"),
        Column("no_verdict", "no verdict"),
        Column("refused", "of these refused"),
    )
    failed = {
        title: sum(bool(exchange.error) for exchange in exchanges)
        for title, exchanges in contest.replies.items()
    }
    notes = tuple(
        f"{title} has no reply to {n} of {len(contest.replies[title])} turns, because the "
        "conversation does not fit its context; judges were not asked about them."
        for title, n in failed.items()
        if n
    )
    return Table("What judges were asked", columns, tuple(rows), notes)
