"""The drafter's part of a round: how far it goes, what it proposes, and how often it was right."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .context import Block, Rows
from .distributions import Array, top_probability
from .drafting import Acceptance, Plan, make_plan, most_rows
from .ensemble import Ensemble
from .errors import ConstraintError
from .generation import Generation
from .sampling import Noise, adjust, sample

# What rounds cost is taken from the costs of decodes anew after so many rounds.
_ROUNDS_PER_PRICE = 16
# Where the drafter is too unsure for a single draft, it is looked every so many rounds whether it
# would have been right.
_ROUNDS_PER_PROBE = 4
# What is known from other generations counts like so many drafts of this one.
_COMMON_COUNT = 8.0


@dataclass(slots=True)
class Draft:
    """A sequence's part of a round: n rows, the drafter's proposals for all but the first.

    Attributes:
        generation: whose it is.
        n: rows; less than planned where the drafter stops early.
        plan: says how long to go on, where that is chosen from measured costs.
        tokens: the proposals.
        rows: (V,) each, the drafter's logits.
        noises: of each row.
        sureness: the drafter's top probability per row, where its plan needs it.
        chance: that all proposals so far are accepted.
        probe: what would have been proposed for the last row, where the drafter was too unsure.
    """

    generation: Generation
    n: int
    plan: Plan | None = None
    tokens: list[int] = field(default_factory=list)
    rows: list[Array] = field(default_factory=list)
    noises: list[Noise] = field(default_factory=list)
    sureness: list[float] = field(default_factory=list)
    chance: float = 1.0
    probe: int | None = None


class Speculation:
    """Plans and makes drafts.

    Args:
        ensemble: its drafter drafts.
        eog: ids that end a generation; nothing is drafted after them.
    """

    def __init__(self, ensemble: Ensemble, eog: frozenset[int]) -> None:
        self._ensemble = ensemble
        self._eog = eog
        self.acceptance = Acceptance()
        self._n_rounds = 0
        self._prices: dict[tuple[int, int], tuple[float, ...]] = {}

    def draft(self, ready: Sequence[Generation]) -> list[Draft]:
        """Single drafter steps, together for all sequences that are still drafting."""
        if self._n_rounds % _ROUNDS_PER_PRICE == 0:
            self._prices.clear()
        self._n_rounds += 1
        drafts = [self._begin(generation, len(ready)) for generation in ready]
        active = drafts
        depth = 0
        while active:
            depth += 1
            blocks: dict[int, list[Block]] = {}
            for draft in active:
                generation = draft.generation
                last = draft.tokens[-1] if draft.tokens else generation.last[generation.drafter]
                block = Block(generation.sequence, [last], 1)
                blocks.setdefault(generation.drafter, []).append(block)
            rows = self._ensemble.decode(blocks)
            self._propose_all(active, rows, depth)
            active = [d for d in active if d.n > depth]
        return drafts

    def _propose_all(
        self, active: Sequence[Draft], rows: Mapping[int, Sequence[Rows]], depth: int
    ) -> None:
        """Hand out the drafters' rows (1, V), which the drafters' next steps overwrite."""
        is_plain = all(draft.n == 1 for draft in active)
        handed_out = {drafter: iter(own) for drafter, own in rows.items()}
        start = time.perf_counter()
        for draft in active:
            row = next(handed_out[draft.generation.drafter])[0]
            self._propose(draft, row if is_plain else row.copy(), depth)
        if is_plain:
            return
        n_proposed = sum(len(draft.tokens) == depth for draft in active)
        if n_proposed == len(active):
            seconds = time.perf_counter() - start
            self._ensemble.costs.add_proposal(seconds / n_proposed)

    def _begin(self, generation: Generation, n_sequences: int) -> Draft:
        options = generation.request.options
        most = min(options.most_rows, generation.limit - len(generation.tokens))
        if generation.masking:
            generation.masking.begin()
        if not self._ensemble.can_rewind:
            return Draft(generation, 1)
        if options.draft != "auto":
            return Draft(generation, most)
        plan = self._plan(generation, n_sequences)
        return Draft(generation, min(len(plan.seconds) or 1, most), plan)

    def _plan(self, generation: Generation, n_sequences: int) -> Plan:
        """The generation's plan; a new one where prices or the number of sequences changed."""
        key = generation.drafter, n_sequences
        if key not in self._prices:
            most = most_rows(self._ensemble.n_vocab)
            self._prices[key] = self._ensemble.costs.of_rounds(key[0], most, n_sequences)
        prices = self._prices[key]
        if generation.plan is None or generation.plan.seconds is not prices:
            common = self.acceptance.mean * _COMMON_COUNT
            rate = (generation.agreed + common) / (generation.checked + _COMMON_COUNT)
            generation.plan = make_plan(prices, rate)
        return generation.plan

    def _propose(self, draft: Draft, row: Array, depth: int) -> None:
        """Keep the drafter's row; where another step may follow, sample the next draft."""
        generation = draft.generation
        options = generation.request.options
        index = len(generation.tokens) + depth - 1
        draft.noises.append(Noise(options.seed, generation.request.choice, index))
        draft.rows.append(row)
        if depth == draft.n:
            return
        if generation.masking:
            try:
                row = generation.masking.apply(row, depth - 1)
            except ConstraintError:
                # It ends the generation only where the row is decided with these drafts.
                draft.n = depth
                return
        is_probe = False
        if draft.plan:
            # Only the row may be looked at: stopping for the sampled token would bias the output.
            draft.sureness.append(top_probability(row))
            draft.chance *= self.acceptance.rate(draft.sureness[-1])
            if not draft.plan.goes_on(depth, draft.chance):
                draft.n = depth
                is_probe = depth > 1 or generation.rounds % _ROUNDS_PER_PROBE == 0
                if not is_probe:
                    return
        counts = generation.counts
        if options.has_penalties and draft.tokens:
            counts = counts + Counter(draft.tokens)
        token = sample(adjust(row, options, counts), options, draft.noises[-1])
        if is_probe:
            draft.probe = token
        elif generation.cancelled or token in self._eog or not _can_go_on(generation, token):
            draft.n = depth
        else:
            draft.tokens.append(token)

    def learn(self, draft: Draft, j: int, token: int) -> bool:
        """Take in the token that was decided in row j; returns whether it had been proposed."""
        generation = draft.generation
        is_drafted = j < len(draft.tokens)
        accepted = is_drafted and token == draft.tokens[j]
        if is_drafted or draft.probe is not None:
            agreed = accepted if is_drafted else token == draft.probe
            generation.checked += 1
            generation.agreed += agreed
            if draft.sureness:
                self.acceptance.add(draft.sureness[j], agreed)
        return accepted


def _can_go_on(generation: Generation, token: int) -> bool:
    """Whether its constraint, if it has one, lets something follow a draft."""
    try:
        return generation.masking is None or generation.masking.draft(token)
    except ConstraintError:
        return False
