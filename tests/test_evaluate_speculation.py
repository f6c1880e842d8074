"""The study of speculation: what it counts against second routes, its test, its near ties."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eftlocal import FusedModel
from eftlocal.evaluate.answering import ask
from eftlocal.evaluate.asking import Asked, chosen, own, shortened
from eftlocal.evaluate.prompt_sets import Prompt
from eftlocal.evaluate.report import Section
from eftlocal.evaluate.scale import UP
from eftlocal.evaluate.speculation import Speculation
from eftlocal.evaluate.speculation.drafts import PURE, Checked, Drafted, Turns
from eftlocal.evaluate.speculation.findings import Fared, Predicted
from eftlocal.evaluate.speculation.tables import claims
from eftlocal.evaluate.statistics import Bootstrap
from eftlocal.evaluate.store import Store
from eftlocal.evaluate.study import Setting
from eftlocal.evaluate.work import Loader, perform
from eftlocal.sampling import Noise
from eftlocal.tables import Estimate

QUESTIONS = ("What is the capital city of Jamaica?", "Who wrote Faust?", "Where is Samoa?")
CONVERSATIONS = tuple(map(ask, QUESTIONS))
NUMBER = Estimate(0.5, 0.4, 0.6)


@pytest.fixture(scope="module")
def model() -> Iterator[FusedModel]:
    """The models of the study, loaded once more."""
    with UP.load() as loaded:
        yield loaded


def done(work: Any) -> list[Any]:
    """The records of a work, without a store."""
    loader = Loader()
    try:
        return [record for _, record in sorted(work.run(range(len(work.items)), loader))]
    finally:
        loader.close()


def drafted(temperature: float, lengths: tuple[int, ...] = (2, 4)) -> Drafted:
    """Replies to all questions."""
    options = {"alpha": "dynamic", "temperature": temperature, "max_tokens": 40, "seed": 3}
    return Drafted("drafted", UP, options, CONVERSATIONS, lengths)


def replayed(model: FusedModel, work: Drafted, index: int, n: int) -> tuple[int, int]:
    """Rounds and accepted drafts of a greedy reply, from a plain trace: the drafter's own tops."""
    settings = work.settings(index, {"draft": "off", "trace": True})
    reply = model.chat(work.conversations[index], **settings)
    wanted = [trace.tuned[0].top for trace in reply.traces]
    rounds = accepted = place = 0
    while place < len(reply.tokens):
        rounds += 1
        for _ in range(min(n, 40 - place) - 1):
            is_end = wanted[place] in model.engine.eog
            if is_end or wanted[place] != reply.tokens[place]:
                break
            accepted += 1
            place += 1
        place += 1
    return rounds, accepted


def test_acceptance_is_that_of_a_replay(model: FusedModel) -> None:
    """Greedy rounds follow from what the tuned model would have chosen at each token."""
    work = drafted(0.0)
    for index, record in enumerate(done(work)):
        for rule, n in product(("coupled", "rejection"), (2, 4)):
            one = record[rule][str(n)]
            assert (one["rounds"], one["accepted"]) == replayed(model, work, index, n)
            assert one["difference"] is None
        plain = record["coupled"]["off"]
        assert (plain["rounds"], plain["drafted"]) == (plain["tokens"], 0)


def test_sampled_drafts_are_those_of_the_events(model: FusedModel) -> None:
    """At temperature 1, accepted drafts are the events that say so, one by one; texts are equal."""
    work = drafted(1.0, (4,))
    for index, record in enumerate(done(work)):
        for rule in ("coupled", "rejection"):
            changes = {"draft": 4, "accept": rule}
            events = list(model.stream_chat(CONVERSATIONS[index], **work.settings(index, changes)))
            one = record[rule]["4"]
            assert one["accepted"] == sum(event.from_draft for event in events)
            assert one["tokens"] == len(events)
            assert one["difference"] is None


def test_every_conversation_has_its_own_noise() -> None:
    """Seeds differ between conversations and follow the study's."""
    work = drafted(1.0)
    seeds = [work.settings(i, {})["seed"] for i in range(3)]
    other = replace(work, options={**work.options, "seed": 4})
    assert len({*seeds, *(other.settings(i, {})["seed"] for i in range(3))}) == 6
    assert replace(work, conversations=CONVERSATIONS[1:]).settings(0, {})["seed"] == seeds[1]


@pytest.mark.parametrize("most", [9, 10, 40])
@pytest.mark.parametrize("rule", ["coupled", "rejection"])
def test_checked_rows(model: FusedModel, rule: str, most: int) -> None:
    """Their total variation is that of scored prompts, their decisions those of the events."""
    options = {"alpha": 1.0, "accept": rule, "max_tokens": most, "seed": 5}
    work = Checked("checked", UP, options, CONVERSATIONS)
    for index, record in enumerate(done(work)):
        settings = work.settings(index, {"draft": 2, "temperature": 1.0})
        reply = list(model.stream_chat(CONVERSATIONS[index], **settings))
        tokens = [event.token for event in reply]
        prompt = model.prepare_chat(CONVERSATIONS[index]).prompt
        scored = model.score((*prompt, *tokens), **PURE, alpha=1.0, trace=True)[len(prompt) - 1 :]
        assert [event.token for event in scored] == tokens
        rows, place = [], 0
        while place < len(tokens):
            trace = scored[place].trace
            assert trace is not None
            kept = reply[place].from_draft
            if place < most - 1:  # nothing is drafted for the last token that is allowed
                rows.append((trace.total_variation[0], kept or tokens[place] in model.engine.eog))
            place += 1 + kept
        assert len(rows) == len(record["rows"])
        for (variation, kept), (found, agreed) in zip(rows, record["rows"], strict=True):
            assert found == pytest.approx(variation, abs=0.02)
            # A rejected draft beside an end is the one case that events do not tell.
            assert agreed == kept or kept


def test_predicted_is_exact_where_rows_are() -> None:
    """Rows that are decided by their total variation give a large p-value, others a small one."""
    rng = np.random.default_rng(0)
    variations = rng.uniform(size=(50, 40))
    again = Bootstrap.over([str(i) for i in range(50)], 0, 500)

    def predicted(chances: Any) -> Predicted:
        kept = rng.uniform(size=variations.shape) < chances
        rows = np.stack([variations, kept], axis=-1)
        return Predicted.of(1.0, "rejection", [{"rows": own.tolist()} for own in rows], again)

    right = predicted(1 - variations)
    assert right.p > 0.01
    assert right.most.value == pytest.approx((1 - variations).mean())
    assert right.least.value == pytest.approx(((1 - variations) / (1 + variations)).mean())
    assert right.above_most.low < 0 < right.above_most.high
    coupled = predicted((1 - variations) / (1 + variations))
    assert coupled.p < 1e-6
    assert coupled.above_most.high < 0
    assert coupled.above_least.low < 0 < coupled.above_least.high
    assert math.isnan(Predicted.of(1.0, "coupled", [{"rows": []}], Bootstrap.over(["a"])).p)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_difference_is_looked_into(model: FusedModel, temperature: float) -> None:
    """A text that was changed by hand: the gap is that of a prompt scored with either token."""
    work = drafted(temperature)
    plain = model.chat(CONVERSATIONS[0], **work.settings(0, {"draft": "off", "accept": "coupled"}))
    settings = work.settings(0, {})
    prompt = plain.prompt_tokens
    trace = model.score((*prompt, *plain.tokens[:4]), alpha="dynamic", trace=True)[-1].trace
    assert trace is not None
    other = next(token for token in trace.ids if token != plain.tokens[3])
    changed = (*plain.tokens[:3], other, *plain.tokens[4:])
    found = work._difference(model, 0, "coupled", plain.tokens, changed)
    scored = [
        model.score((*prompt, *plain.tokens[:3], token), alpha="dynamic")[-1].logprob
        for token in (plain.tokens[3], other)
    ]
    noise = Noise(settings["seed"], 0, 3)
    uniforms = [
        (int(noise.all_bits(model.n_vocab)[t]) + 0.5) / 2**32 for t in (plain.tokens[3], other)
    ]
    gumbels = [-math.log(-math.log(1 - uniform)) for uniform in uniforms]
    expected = scored[0] - scored[1] + temperature * (gumbels[0] - gumbels[1])
    assert found["place"] == 3
    assert found["gap"] == pytest.approx(expected, abs=0.02)
    cut = work._difference(model, 0, "coupled", plain.tokens, plain.tokens[:3])
    assert cut == {"place": 3, "gap": None}


def fared(rule: str = "coupled", **changes: Any) -> Fared:
    """Ten replies that all have the plain text."""
    one = Fared(1.0, 0.0, rule, 2, 10, 10, 0.0, (), NUMBER, NUMBER)
    return replace(one, **changes)


@pytest.mark.parametrize(
    ("gaps", "holds", "found"),
    [
        ((), True, "20 of 20 drafted replies"),
        ((2e-4, -7e-4), True, "at most 0.0007 nats apart"),
        ((2e-4, -0.3), False, "at most 0.3 nats"),
        ((2e-4, None), False, "1 of the others part where nobody knows"),
    ],
)
def test_the_claim_of_equal_texts(gaps: tuple[float | None, ...], holds: bool, found: str) -> None:
    """Only differences that rounding explains leave it standing."""
    ones = [fared(), fared(equal=10 - len(gaps), gaps=gaps)]
    claim = claims(ones, [], [])[0]
    assert claim.holds is holds
    assert found in claim.found
    assert bool(claim.reason) == bool(gaps)


def test_claims_of_equal_texts_need_drafts() -> None:
    """Unequal texts by rejection are not decided; without drafts neither claim says anything."""
    unequal = fared("rejection", equal=9, gaps=(None,))
    assert [claims([one], [], [])[1].holds for one in (fared("rejection"), unequal)] == [True, None]
    nothing = Estimate(math.nan, math.nan, math.nan)
    ones = [fared(rule, accepted=nothing) for rule in ("coupled", "rejection")]
    for given in (ones, []):
        assert [claim.holds for claim in claims(given, [], [])] == [None] * 5


STUDY = Speculation(
    asked=tuple(Asked(ask(f"{text}\nSay it."), f"{i}", "x") for i, text in enumerate(QUESTIONS)),
    alphas=("dynamic",),
    temperatures=(1.0,),
    lengths=(2, 4),
    max_tokens=24,
    n_tested=1,
    n_draws=120,
    n_timed=1,
    files={"models": "base large.gguf 0ec51866"},
)


class Stop(Exception):
    """What a progress function raises to end a run."""


def without_times(section: Section) -> Mapping[str, Any]:
    """A section as JSON, but for columns of times."""
    found = section.to_json()
    for table in found["tables"]:
        for row in table["rows"]:
            row.pop("times", None)
    return found


def run(setting: Setting) -> Section:
    """The study, done and written."""
    perform(STUDY.work(setting), setting.store)
    return STUDY.section(setting)


def test_a_run_that_was_stopped_says_the_same(tmp_path: Path) -> None:
    """Stopped again and again, or once more in another folder: equal but for times."""
    whole = run(Setting(Store(tmp_path / "a"), resamples=200))
    setting = Setting(Store(tmp_path / "b"), resamples=200)
    for stop in (2, 5, 9):

        def stopping(done: int, total: int, title: str, stop: int = stop) -> None:
            if done >= stop:
                raise Stop

        with pytest.raises(Stop):
            perform(STUDY.work(setting), setting.store, stopping)
    again = run(setting)
    assert without_times(again) == without_times(whole)
    assert again.to_json() != whole.to_json()
    assert STUDY.section(setting).to_json() == again.to_json()
    assert all(claim.holds for claim in whole.claims[:2])
    timed = whole.tables[-1]
    assert [column.is_time for column in timed.columns] == [False] * 3 + [True] * 3
    assert not any(column.is_time for table in whole.tables[:-1] for column in table.columns)
    assert len(whole.figures[0].lines[0].points) == 2
    whole.to_text()
    assert whole.settings["models"] == "base large.gguf 0ec51866"
    shown = [cell for table in whole.tables for row in table.rows for cell in row]
    assert "What is the capital city of Jamaica?..." in shown


def test_times_leave_no_model_behind() -> None:
    """What was timed knew nothing of costs, and what it has learnt of them is gone with it."""
    options = {"alpha": 1.0, "temperature": 0.0, "max_tokens": 8, "seed": 0}
    work = Turns("timed", UP, options, CONVERSATIONS[:1])
    loader = Loader()
    before = loader.get(UP)
    record = next(iter(dict(work.run([0], loader)).values()))
    assert list(record) == ["off", "2", "4", "8", "auto"]
    assert all(seconds > 0 for seconds in record.values())
    assert not any(before.engine.ensemble.costs.known)
    assert not any(loader.get(UP).engine.ensemble.costs.known)
    loader.close()


def test_what_is_asked(tmp_path: Path) -> None:
    """The family's questions are thinned twice; people's own stand alone."""
    setting = Setting(Store(tmp_path), every=3)
    questions = chosen(None, 4, setting)
    assert len(questions) == 25
    assert questions[0].answers and "/" in questions[0].cluster
    prompts = [Prompt("a", (text,), category="c", answers=("x",)) for text in QUESTIONS]
    assert own(prompts)[1] == Asked(CONVERSATIONS[1], "1", "c", ("x",))
    assert chosen(own(prompts), 4, setting) == list(own(prompts)[::3])


def test_texts_are_shortened_to_one_line() -> None:
    """Whatever people ask: their first line, and three points where something is left out."""
    assert shortened("What?", 40) == "What?"
    assert shortened(" \n Tell\tme: \nall of it", 40) == "Tell me:..."
    assert shortened("word " * 50, 38) == "word word word word word word word..."
    assert shortened("x" * 40, 40) == "x" * 40
    assert shortened("x" * 41, 40) == "x" * 37 + "..."
    assert shortened("x" * 40 + "\ny", 40) == "x" * 37 + "..."
