"""Speculation: what drafts are worth, and that they change neither texts nor distributions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from ..asking import Asked, chosen, shortened
from ..report import Section
from ..scale import UP
from ..statistics import Bootstrap
from ..study import Setting
from ..systems import Models
from ..work import Work, records
from .drafts import PLAIN, RULES, Checked, Drafted, Turns
from .draws import Draws, Tree
from .findings import Drawn, Fared, Predicted, Timed
from .tables import INTRO, claims, figure, tables

_SEEDS_APART = 1_000_003
"""Seeds of draws follow each other; those of two settings are so far apart."""
_TITLE = 40
"""Characters of a prompt in a table."""


@dataclass(frozen=True)
class Speculation:
    """The study; see `study.Study`.

    Attributes:
        models: what answers, fused.
        asked: conversations; None takes every `thin`-th question of the embedded family.
        thin: see above.
        alphas: modes of alpha.
        temperatures: of the replies.
        lengths: n of the drafted replies.
        max_tokens: of a reply.
        n_tested: conversations whose first tokens are tested.
        n_draws: seeds of each test.
        n_timed: conversations that the clock is read for.
        command: gives the section.
        files: what the section tells of the files that were named.
    """

    models: Models = UP
    asked: tuple[Asked, ...] | None = None
    thin: int = 5
    alphas: tuple[float | str, ...] = (1.0, "dynamic")
    temperatures: tuple[float, ...] = (0.0, 0.7, 1.0)
    lengths: tuple[int, ...] = (2, 4, 8)
    max_tokens: int = 64
    n_tested: int = 4
    n_draws: int = 500
    n_timed: int = 12
    command: str = "eftlocal eval speculation"
    files: Mapping[str, str] = field(default_factory=dict)

    def work(self, setting: Setting) -> Sequence[Work]:
        """Replies, rows and draws; what the clock is read for comes last."""
        works: list[Work] = [work for _, _, work in self._drafted(setting)]
        works += [work for _, _, work in self._checked(setting)]
        for _, _, _, tree, draws in self._draws(setting):
            works += [tree, draws]
        return [*works, *(work for *_, work in self._turns(setting))]

    def section(self, setting: Setting) -> Section:
        """Tables, a figure, and the claims."""
        store = setting.store
        asked = chosen(self.asked, self.thin, setting)
        again = Bootstrap.over([one.cluster for one in asked], setting.seed, setting.resamples)
        fared = [
            Fared.of((alpha, temperature, rule, n), records(work, store), again)
            for alpha, temperature, work in self._drafted(setting)
            for rule in RULES
            for n in self.lengths
        ]
        predicted = [
            Predicted.of(alpha, rule, records(work, store), again)
            for alpha, rule, work in self._checked(setting)
        ]
        drawn = [
            Drawn.of(
                (shortened(one.title, _TITLE), alpha, rule),
                records(tree, store),
                records(draws, store),
            )
            for one, alpha, rule, tree, draws in self._draws(setting)
        ]
        timed = [
            Timed.of((alpha, temperature, rule), records(work, store), setting)
            for alpha, temperature, rule, work in self._turns(setting)
        ]
        return Section(
            name="speculation",
            title="Drafting: what it gives, and what it leaves as it was",
            intro=INTRO,
            command=self.command,
            settings={
                **self.files,
                "prompts": str(len(asked)),
                "decoding": f"at most {self.max_tokens} tokens, no filters, no penalties",
                "seed": str(setting.seed),
            },
            claims=claims(fared, predicted, drawn),
            tables=tables(fared, predicted, drawn, timed),
            figures=(figure(fared),),
        )

    def _replies(self, setting: Setting) -> dict[str, Any]:
        """What works on all conversations have in common."""
        asked = chosen(self.asked, self.thin, setting)
        return {"models": self.models, "conversations": tuple(one.conversation for one in asked)}

    def _drafted(self, setting: Setting) -> Iterator[tuple[float | str, float, Drafted]]:
        for alpha in self.alphas:
            for temperature in self.temperatures:
                options = {
                    "alpha": alpha,
                    "temperature": temperature,
                    "max_tokens": self.max_tokens,
                    "seed": setting.seed,
                }
                title = f"drafted, alpha {alpha}, temperature {temperature:g}"
                common = self._replies(setting)
                yield (
                    alpha,
                    temperature,
                    Drafted(title, options=options, **common, lengths=self.lengths),
                )

    def _checked(self, setting: Setting) -> Iterator[tuple[float | str, str, Checked]]:
        for alpha in self.alphas:
            for rule in RULES:
                options = {
                    "alpha": alpha,
                    "accept": rule,
                    "max_tokens": self.max_tokens,
                    "seed": setting.seed,
                }
                title = f"drafts checked, alpha {alpha}, {rule}"
                yield alpha, rule, Checked(title, options=options, **self._replies(setting))

    def _draws(self, setting: Setting) -> Iterator[tuple[Asked, float | str, str, Tree, Draws]]:
        """The first tokens of some conversations, evenly chosen."""
        asked = chosen(self.asked, self.thin, setting)
        n = min(self.n_tested, len(asked))
        ones = [asked[i * len(asked) // n] for i in range(n)]
        seed = setting.seed * _SEEDS_APART
        for one, alpha in product(ones, self.alphas):
            tree = Tree("exact probabilities", self.models, {"alpha": alpha}, one.conversation)
            for rule in RULES:
                options = {"alpha": alpha, "accept": rule, "draft": 4, "seed": seed}
                title = f"draws, alpha {alpha}, {rule}"
                draws = Draws(title, self.models, options, one.conversation, self.n_draws)
                yield one, alpha, rule, tree, draws
                seed += self.n_draws

    def _turns(self, setting: Setting) -> Iterator[tuple[float | str, float, str, Turns]]:
        common = self._replies(setting)
        common["conversations"] = common["conversations"][: self.n_timed]
        for alpha, temperature, drafted in self._drafted(setting):
            for rule in RULES:
                options = {**drafted.options, "accept": rule}
                title = f"timed, alpha {alpha}, temperature {temperature:g}, {rule}"
                drafts: tuple[str | int, ...] = (PLAIN, *self.lengths, "auto")
                yield (
                    alpha,
                    temperature,
                    rule,
                    Turns(title, options=options, **common, drafts=drafts),
                )
