"""The study of divergence: traced tokens against second routes, shares, places, excerpts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eftlocal import FusedModel
from eftlocal.evaluate.answering import ask
from eftlocal.evaluate.asking import Asked
from eftlocal.evaluate.divergence import Divergence
from eftlocal.evaluate.divergence.excerpts import excerpts
from eftlocal.evaluate.divergence.study import _claims
from eftlocal.evaluate.divergence.tokens import Tokens, answer_tokens
from eftlocal.evaluate.divergence.tracing import Token, Traced, read_tokens
from eftlocal.evaluate.report import Section
from eftlocal.evaluate.scale import UP
from eftlocal.evaluate.statistics import Bootstrap
from eftlocal.evaluate.store import Store
from eftlocal.evaluate.study import Setting
from eftlocal.evaluate.systems import Models, System, family, greedy
from eftlocal.evaluate.work import Loader, perform

from .conftest import N_VOCAB, Trio
from .rescoring import rescore

CONVERSATIONS = tuple(
    map(ask, ("What is the capital city of Jamaica?", "Who wrote Faust?", "symbol for gold"))
)


@pytest.fixture(scope="module")
def model() -> Iterator[FusedModel]:
    """The models of the study."""
    with UP.load() as loaded:
        yield loaded


def traced(models: Models, **options: object) -> tuple[Traced, list[tuple[Token, ...]]]:
    """Traced replies to all questions."""
    work = Traced(System("up-scaled", models, greedy(**options)), CONVERSATIONS)
    loader = Loader()
    try:
        found = dict(work.run(range(3), loader))
    finally:
        loader.close()
    return work, [read_tokens(found[i]) for i in range(3)]


@pytest.mark.parametrize("alpha", [1.0, "dynamic"])
def test_tokens_are_those_of_scored_prompts(model: FusedModel, alpha: float | str) -> None:
    """Texts are those of plain replies; what a token came from is what scoring says of it."""
    _, replies = traced(UP, alpha=alpha)
    for conversation, tokens in zip(CONVERSATIONS, replies, strict=True):
        plain = model.chat(conversation, **greedy(alpha=alpha))
        assert [token.id for token in tokens] == list(plain.tokens)
        assert "".join(token.text for token in tokens) == plain.text
        whole = (*plain.prompt_tokens, *plain.tokens)
        scored = model.score(whole, alpha=alpha, trace=True)[len(plain.prompt_tokens) - 1 :]
        for token, event in zip(tokens, scored, strict=True):
            trace = event.trace
            assert trace is not None
            assert token.variation == pytest.approx(trace.total_variation[0], abs=0.02)
            assert token.alpha == pytest.approx(trace.alpha[0], abs=0.05)
            assert token.origin == trace.origin
            for (text, share), view in (
                (token.base, trace.base),
                (token.tuned, trace.tuned[0]),
                (token.fused, trace.fused),
            ):
                assert text == model.token_text(view.top)
                assert share == pytest.approx(view.top_probability, abs=0.02)


def test_total_variation_in_float64(trio: Trio) -> None:
    """It is half the sum of differences of distributions that another program computes."""
    files = {"base": trio.base, "tuned": trio.tuned, "reference": trio.reference}
    models = Models(files=files, runtime={"threads": 1})
    work, replies = traced(models, alpha=0.7, max_tokens=12)
    with models.load() as loaded:
        prompt = loaded.prepare_chat(CONVERSATIONS[0]).prompt
    steps = [[*prompt, *(token.id for token in replies[0])]]
    fused = np.exp(rescore(trio, steps, 0.7))[len(prompt) - 1 : -1]
    # A fusion of the tuned model with no delta is the tuned model.
    tuned = np.exp(rescore(Trio(trio.tuned, trio.tuned, trio.tuned), steps, 0.0))
    expected = np.abs(fused - tuned[len(prompt) - 1 : -1]).sum(axis=1) / 2
    assert fused.shape[1] == N_VOCAB
    assert [token.variation for token in replies[0]] == pytest.approx(expected, abs=0.01)
    assert "traced" in work.title


def test_the_leading_expert_is_shown(model: FusedModel) -> None:
    """Of several experts the one with the largest multiplier."""
    models = family("large", ("small-chat", "small-countries"))
    _, both = traced(models, weight={"small-chat": 0.0, "small-countries": 1.0}, alpha=1.0)
    _, alone = traced(family("large", "small-countries"), alpha=1.0)
    assert [[t.id for t in own] for own in both] == [[t.id for t in own] for own in alone]
    for one, other in zip(both[0], alone[0], strict=True):
        assert one.variation == pytest.approx(other.variation, abs=1e-6)
        assert one.alpha == 1
        assert one.tuned == other.tuned


def token(text: str, variation: float = 0.0, origin: str = "agreement") -> Token:
    """A token with some text."""
    return Token(1, text, variation, 1.0, origin, ("a", 0.5), ("b", 0.25), ("c", 0.125))


def test_tokens_of_answers() -> None:
    """Whole words, whatever their case and however they are cut; every place of every answer."""
    tokens = [token(text) for text in ("It", " is Ki", "ng", "ston", ".\n", "kingston", "s?", "")]
    expected = [False, True, True, True, False, False, False, False]
    assert answer_tokens(tokens, ["Kingston"]) == expected
    assert answer_tokens(tokens, ["is", "nothing"]) == [False, True, *[False] * 6]
    assert answer_tokens(tokens, []) == [False] * 8
    assert answer_tokens([token(" "), token("Au"), token(" and au")], ["AU"]) == [False, True, True]


def some_tokens() -> Tokens:
    """Two hundred tokens in replies of different lengths, some of them answers."""
    rng = np.random.default_rng(0)
    replies, inside = [], []
    for length in rng.integers(1, 9, 40):
        variations = rng.uniform(size=length) ** 3
        replies.append([token("x", v, "base" if v > 0.4 else "delta") for v in variations])
        inside.append((rng.uniform(size=length) < 0.3).tolist())
    asked = [Asked(ask("?"), f"{i // 2}", "s") for i in range(40)]
    again = Bootstrap.over([one.cluster for one in asked], 0, 300)
    return Tokens("alpha 1", asked, replies, inside, again)


def test_shares_are_those_of_all_tokens() -> None:
    """Every share and mean equals the one over a flat list; intervals hold it."""
    own = some_tokens()
    values = np.array([t.variation for t in own.all])
    inside = np.array([x for reply in own.in_answer for x in reply])
    ordered = np.sort(values)[::-1]
    n_heaviest = round(0.1 * len(values))
    assert own.heaviest() == ordered[n_heaviest - 1]
    heavy = values > 0.4
    expected = {
        own.share(lambda t: t.variation < 0.1): (values < 0.1).mean(),
        own.carried(own.heaviest()): ordered[:n_heaviest].sum() / values.sum(),
        own.mean(is_answer=True): values[inside].mean(),
        own.mean(is_answer=False): values[~inside].mean(),
        own.difference(): values[inside].mean() - values[~inside].mean(),
        own.share(lambda t: t.variation > 0.6, lambda t: t.origin == "base"): (
            (values > 0.6).sum() / heavy.sum()
        ),
    }
    for found, value in expected.items():
        assert found.value == pytest.approx(float(value))
        assert found.low < found.value < found.high


def test_excerpts_are_chosen_by_rule() -> None:
    """The largest of each subject first, then the next largest; then the most typical."""
    heights = {"a": (0.9, 0.95, 0.2), "b": (0.5, 0.1, 0.3)}
    asked, replies = [], []
    for subject, values in heights.items():
        for i, value in enumerate(values):
            asked.append(Asked(ask(f"{subject}{i}"), f"{i}", subject))
            replies.append([token("x", value), token("", value / 2)])
    found = excerpts(asked, replies, 5)
    titles = ["a1 (a, largest)", "b0 (b, largest)", "a0 (a, largest)"]
    assert [one.title for one in found] == [*titles, "b2 (b, typical)", "a2 (a, typical)"]
    text, strength, described = found[0].pieces[1]
    assert (text, strength) == ("[end]", 0.475)
    assert described.startswith("total variation 0.47; alpha 1; agreement: ")
    assert described.endswith('base "a" 50%; tuned "b" 25%; fused "c" 12%')
    assert excerpts([], [], 8) == ()
    long = Asked(ask("What is it?\nSay it.\n" + "word " * 100), "0", "a\nb " * 30)
    (one,) = excerpts([long], [[token("x", 0.5)]], 1)
    assert one.title == "What is it?... (a..., typical)"


def test_wrong_replies_are_shown_too() -> None:
    """At most two, however large their tokens are; right are those that hold an answer."""
    asked = [Asked(ask(f"q{i}"), f"{i}", "s", ("Lima",)) for i in range(6)]
    texts = ["Lima", "Quito", "Quito", "Quito", "in Lima.", "Limassol"]
    replies = [[token(text, 0.9 - i / 10)] for i, text in enumerate(texts)]
    found = [one.title for one in excerpts(asked, replies, 5)]
    assert found[:1] == ["q0 (s, largest)"]
    assert found[1:3] == [f"q{i} (s, largest of wrong replies)" for i in (1, 2)]
    assert [title.endswith("typical)") for title in found] == [False] * 3 + [True] * 2
    found = [one.title for one in excerpts(asked, replies, 7)]
    assert found[1] == "q4 (s, largest)"


STUDY = Divergence(thin=100, max_tokens=24, n_excerpts=3)


def section(setting: Setting, study: Divergence = STUDY) -> Section:
    """The study, done and written."""
    perform(study.work(setting), setting.store)
    return study.section(setting)


def test_a_run_that_was_stopped_says_the_same(tmp_path: Path) -> None:
    """To the byte, because nothing in it is measured by the clock."""

    class Stop(Exception):
        """Ends a run."""

    setting = Setting(Store(tmp_path / "a"), resamples=200)
    for stop in (1, 4):

        def stopping(done: int, total: int, title: str, stop: int = stop) -> None:
            if done >= stop:
                raise Stop

        with pytest.raises(Stop):
            perform(STUDY.work(setting), setting.store, stopping)
    whole = section(setting)
    other = section(Setting(Store(tmp_path / "b"), resamples=200))
    assert whole.to_json() == other.to_json()
    assert whole.to_text() == other.to_text()
    assert len(whole.excerpts) == 3
    assert len(whole.claims) == 8
    for figure, row in zip(whole.figures, whole.tables[0].to_json()["rows"], strict=True):
        shares = [point.y.value for point in figure.lines[0].points]  # type: ignore[union-attr]
        assert sum(shares) == pytest.approx(1)
        assert sum(share * row["tokens"] for share in shares) == pytest.approx(row["tokens"])
        first = figure.lines[0].points[0]
        assert first.x == 0.025
        assert first.y.to_json() == row["below_0.05"]  # type: ignore[union-attr]


def test_people_s_own_prompts_have_no_answers(tmp_path: Path) -> None:
    """Then nothing is said of where the facts are."""
    asked: Sequence[Asked] = [Asked(one, f"{i}") for i, one in enumerate(CONVERSATIONS)]
    study = replace(STUDY, asked=tuple(asked), alphas=(1.0,), command="eftlocal eval x")
    found = section(Setting(Store(tmp_path), resamples=100), study)
    assert len(found.claims) == 3
    assert found.command == "eftlocal eval x"
    (row,) = found.tables[1].to_json()["rows"]
    assert row["place"] == "all tokens"
    assert row["tokens"] == found.tables[0].to_json()["rows"][0]["tokens"]
    known = replace(asked[0], answers=("no such answer",))
    found = section(Setting(Store(tmp_path), resamples=100), replace(study, asked=(known,)))
    assert [row["tokens"] > 0 for row in found.tables[1].to_json()["rows"]] == [False, True]


def flat(variations: Sequence[Sequence[float]], origin: str = "delta") -> Tokens:
    """Replies with these total variations, each on a thing of its own."""
    replies = [[token("x", v, origin if v > 0.5 else "delta") for v in own] for own in variations]
    asked = [Asked(ask("?"), f"{i}", "s") for i in range(len(replies))]
    inside = [[False] * len(own) for own in replies]
    again = Bootstrap.over([one.cluster for one in asked], 0, 300)
    return Tokens("1", asked, replies, inside, again)


def test_claims_follow_their_intervals() -> None:
    """The whole interval on one side of the bar decides; a bar inside of it leaves it open."""
    few = [[0.01] * 8 + [0.6 + i % 3 / 10] for i in range(40)]
    few[0].append(0.01)
    half = [[0.3, 0.3] if i % 2 else [0.01, 0.01, 0.01, 0.9] for i in range(40)]
    many = [[0.01, 0.9 + i / 1000, 0.9 - i / 100] for i in range(40)]
    many[0].append(0.01)
    some = [[0.01] * 5 if i % 2 else [0.01] * 3 + [0.9, 0.9] for i in range(40)]
    kinds = (few, half, many, some)
    found = [[claim.holds for claim in _claims(flat(own, "base"))] for own in kinds]
    assert found[0][:2] == [True, True]
    assert found[1][0] is None and found[3][0] is None
    assert found[2][:2] == [False, False]
