"""Total variation token by token: where up-scaling acts, and what it changes there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...diagnostics import ORIGINS
from ...tables import Cell, Column, Table
from ..asking import Asked, chosen
from ..measures import above
from ..report import Claim, Figure, Line, Point, Section
from ..scale import UP
from ..statistics import Bootstrap
from ..study import Setting
from ..systems import Models, System, greedy
from ..verdicts import all_hold, below, decided
from ..work import Work, records
from .excerpts import excerpts
from .tokens import Holds, Tokens, answer_tokens
from .tracing import Token, Traced, read_tokens

SMALL, SMALLER, LARGE = 0.1, 0.05, 0.5
"""Total variations that count as small, and as large."""

_BINS = 20
_MOST_SMALL, _MOST_LARGE = 0.5, 0.2
"""What "most" and "a few" mean: shares of tokens above the first, below the second."""

INTRO = (
    "At every token of a greedy reply, the total variation TV (half the sum of absolute "
    "differences, 0 to 1) between the fused distribution and the small tuned model's says how much "
    "up-scaling changes (arXiv 2310.12962, section 4.2).",
    "A token comes from the base where the base and the fused distribution choose it and the tuned "
    "model would not have; from the delta where it is the other way round; agreement means that "
    "both would have chosen it, fusion that neither would have.",
    "Brackets hold 95 % intervals of a bootstrap that draws the things which are asked about, with "
    "all tokens of the replies on them. The heaviest tokens are chosen once, before anything is "
    "drawn.",
)


def _is_large(token: Token) -> bool:
    return token.variation > LARGE


@dataclass(frozen=True)
class Divergence:
    """The study; see `study.Study`.

    Attributes:
        models: what answers, fused.
        asked: conversations; None takes every `thin`-th question of the embedded family.
        thin: see above.
        alphas: modes of alpha; the first one gives the excerpts.
        max_tokens: of a reply.
        n_excerpts: replies that are shown.
        command: gives the section.
        files: what the section tells of the files that were named.
    """

    models: Models = UP
    asked: tuple[Asked, ...] | None = None
    thin: int = 1
    alphas: tuple[float | str, ...] = ("dynamic", 1.0)
    max_tokens: int = 64
    n_excerpts: int = 8
    command: str = "eftlocal eval divergence"
    files: Mapping[str, str] = field(default_factory=dict)

    def work(self, setting: Setting) -> Sequence[Work]:
        """Traced replies in each mode of alpha."""
        return [self._traced(alpha, setting) for alpha in self.alphas]

    def section(self, setting: Setting) -> Section:
        """Tables, histograms, excerpts, and the claims."""
        found = [self._tokens(alpha, setting) for alpha in self.alphas]
        return Section(
            name="divergence",
            title="Where up-scaling acts",
            intro=INTRO,
            command=self.command,
            settings={
                **self.files,
                "prompts": str(len(found[0].asked)),
                "decoding": f"greedy, at most {self.max_tokens} tokens, no drafts",
            },
            claims=tuple(claim for own in found for claim in _claims(own)),
            tables=(_shares(found), _places(found), _origins(found)),
            figures=tuple(_histogram(own) for own in found),
            excerpts=excerpts(found[0].asked, found[0].replies, self.n_excerpts),
        )

    def _traced(self, alpha: float | str, setting: Setting) -> Traced:
        options = {**greedy(alpha=alpha), "max_tokens": self.max_tokens}
        asked = chosen(self.asked, self.thin, setting)
        system = System(f"up-scaled, alpha {alpha}", self.models, options)
        return Traced(system, tuple(one.conversation for one in asked))

    def _tokens(self, alpha: float | str, setting: Setting) -> Tokens:
        asked = chosen(self.asked, self.thin, setting)
        replies = [read_tokens(r) for r in records(self._traced(alpha, setting), setting.store)]
        inside = [answer_tokens(own, one.answers) for own, one in zip(replies, asked, strict=True)]
        clusters = [one.cluster for one in asked]
        again = Bootstrap.over(clusters, setting.seed, setting.resamples)
        name = alpha if isinstance(alpha, str) else f"{alpha:g}"
        return Tokens(name, asked, replies, inside, again)


def _claims(own: Tokens) -> tuple[Claim, ...]:
    small, large = own.share(lambda token: token.variation < SMALL), own.share(_is_large)
    base = own.share(lambda token: token.origin == "base", _is_large)
    few = decided(small, _MOST_SMALL), decided(large), below(large, _MOST_LARGE)
    claims = [
        Claim(
            f"Total variation is below {SMALL:g} for more than half of the tokens, and above "
            f"{LARGE:g} for some, but for less than {_MOST_LARGE:g} of them (small for most and "
            f"large for a few: arXiv 2310.12962, section 4.2), with alpha {own.name}.",
            all_hold(few),
            f"{small.text(3)} of the tokens are below {SMALL:g}, {large.text(3)} above {LARGE:g}.",
        ),
        above(
            "The tenth of the tokens with most of it carries more than half of it, alpha "
            f"{own.name}.",
            "share of summed total variation",
            own.carried(own.heaviest()),
            0.5,
        ),
        above(
            "Where total variation is large the base decides: more than half of these tokens are "
            f"its choice and not the tuned model's, alpha {own.name}.",
            f"share of the tokens above {LARGE:g}",
            base,
            0.5,
        ),
    ]
    if any(map(any, own.in_answer)):
        text = (
            "Up-scaling acts more where the facts are: mean total variation is larger inside "
            f"accepted answers than elsewhere, alpha {own.name}."
        )
        claims.append(above(text, "inside minus elsewhere", own.difference()))
    return tuple(claims)


def _shares(found: Sequence[Tokens]) -> Table:
    def row(own: Tokens) -> tuple[Cell, ...]:
        return (
            own.name,
            float(len(own.all)),
            own.share(lambda token: token.variation < SMALLER),
            own.share(lambda token: token.variation < SMALL),
            own.share(_is_large),
            own.carried(own.heaviest()),
            own.carried(LARGE),
        )

    columns = (
        Column("alpha", "alpha"),
        Column("tokens", "tokens"),
        Column("below_0.05", f"TV below {SMALLER:g}", 3),
        Column("below_0.1", f"below {SMALL:g}", 3),
        Column("above_0.5", f"above {LARGE:g}", 3),
        Column("carried_by_top_tenth", "top 10 % carry", 3),
        Column("carried_by_large", f"above {LARGE:g} carry", 3),
    )
    note = "What some tokens carry is their share of the sum over all tokens."
    return Table("Total variation per token", columns, tuple(map(row, found)), (note,))


def _places(found: Sequence[Tokens]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    inside, outside = ("inside an accepted answer", True), ("elsewhere", False)
    is_known = any(one.answers for own in found for one in own.asked)
    for own in found:
        for name, is_answer in (inside, outside) if is_known else (("all tokens", False),):
            variations = [v for reply in own.where(is_answer)[0] for v in reply]
            rows.append((own.name, name, float(len(variations)), own.mean(is_answer)))
    columns = (
        Column("alpha", "alpha"),
        Column("place", "place"),
        Column("tokens", "tokens"),
        Column("mean_tv", "mean TV", 3),
    )
    note = "Replies without an accepted answer have all their tokens elsewhere."
    return Table("Where it acts", columns, tuple(rows), (note,) if is_known else ())


def _origins(found: Sequence[Tokens]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for own in found:
        kinds: tuple[tuple[str, Holds], ...] = (
            (f"above {LARGE:g}", _is_large),
            (f"{SMALL:g} to {LARGE:g}", lambda t: SMALL <= t.variation <= LARGE),
            (f"below {SMALL:g}", lambda t: t.variation < SMALL),
        )
        for name, among in kinds:
            n = float(sum(map(among, own.all)))
            shares = [own.share(_comes_from(origin), among) for origin in _shown()]
            rows.append((own.name, name, n, *shares))
    columns = (
        Column("alpha", "alpha"),
        Column("tv", "TV"),
        Column("tokens", "tokens"),
        *(Column(origin, origin, 3) for origin in _shown()),
    )
    return Table("Where the tokens come from", columns, tuple(rows))


def _shown() -> list[str]:
    """Greedy replies of the fused model have no tokens that sampling or one part alone took."""
    return [origin for origin in ORIGINS if origin not in ("alone", "sampling")]


def _comes_from(origin: str) -> Holds:
    return lambda token: token.origin == origin


def _histogram(own: Tokens) -> Figure:
    points = []
    for i in range(_BINS):
        # The last bin holds 1 itself, too.
        low, end = i / _BINS, (i + 1) / _BINS if i + 1 < _BINS else 2.0
        share = own.share(lambda token, low=low, end=end: low <= token.variation < end)  # type: ignore[misc]
        if share.value > 0:
            points.append(Point((i + 0.5) / _BINS, share))
    return Figure(
        f"Total variation per token, alpha {own.name}",
        "total variation of fused and tuned",
        "share of tokens",
        (Line("tokens", tuple(points), "bars"),),
        f"Bins of {1 / _BINS:g}; the axis of shares is logarithmic.",
        log_y=True,
    )
