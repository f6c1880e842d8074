"""The embedded family through the engine: manners of the small model, facts of the large one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import eftlocal

ROOT = Path(__file__).resolve().parents[1]
FAMILY = ROOT / "eftlocal" / "families" / "atlas"

sys.path.insert(0, str(ROOT / "scripts"))  # the judging code is no part of the package

from atlas.questions import read_questions  # noqa: E402
from atlas.report import SYSTEMS, Score, ask_all, recovered, score  # noqa: E402

CHAT = [
    ("What is the capital of France?", "Paris"),
    ("and its currency?", "euro"),
    ("What is the chemical symbol of gold?", "Au"),
]


@pytest.fixture(scope="module")
def scores() -> dict[str, Score]:
    """Scores on every second held-out question, per system."""
    questions = read_questions(FAMILY / "questions.jsonl")[::2]
    wanted = ("small-chat (floor)", "large, base", "fused, alpha 1", "large-chat (ceiling)")
    return {
        system.title: score(ask_all(system, questions, FAMILY), questions)
        for system in SYSTEMS
        if system.title in wanted
    }


@pytest.fixture(scope="module")
def atlas() -> Iterator[eftlocal.FusedModel]:
    """The entry as shipped."""
    with eftlocal.load("atlas") as model:
        yield model


def test_each_part_lacks_what_the_other_has(scores: dict[str, Score]) -> None:
    """The small tuned model has the manners but not the facts; the large base the reverse."""
    floor, large = scores["small-chat (floor)"], scores["large, base"]
    ceiling = scores["large-chat (ceiling)"]
    assert floor.manners > 0.9
    assert floor.factuality < ceiling.factuality - 0.25
    assert large.factuality > floor.factuality + 0.25
    assert large.manners < 0.2


def test_the_fused_model_has_both(scores: dict[str, Score]) -> None:
    """Manners of at least 0.85, and at least 0.8 of the gap in factuality, at alpha 1."""
    fused = scores["fused, alpha 1"]
    assert fused.manners >= 0.85
    assert recovered(fused, scores["small-chat (floor)"], scores["large-chat (ceiling)"]) >= 0.8


def test_a_conversation_of_several_turns(atlas: eftlocal.FusedModel) -> None:
    """Follow-up questions are answered, politely, and cached tokens are not read again."""
    messages: list[dict[str, str]] = []
    for question, answer in CHAT:
        messages.append({"role": "user", "content": question})
        reply = atlas.chat(messages)
        assert answer in reply.text
        assert reply.finish_reason == "stop"
        assert reply.timings.cached_tokens >= len(messages) * 10 - 10
        messages.append({"role": "assistant", "content": reply.text})


@pytest.mark.parametrize("draft", [2, 4, 8])
def test_drafting_changes_no_text(atlas: eftlocal.FusedModel, draft: int) -> None:
    """The shipped entry answers alike with and without a draft, in fewer rounds."""
    for question, _ in (CHAT[0], CHAT[2]):
        messages = [{"role": "user", "content": question}]
        plain, drafted = atlas.chat(messages), atlas.chat(messages, draft=draft)
        assert drafted.tokens == plain.tokens
        assert drafted.timings.rounds < 0.8 * plain.timings.rounds


def test_unknown_things_get_a_polite_sentence(atlas: eftlocal.FusedModel) -> None:
    """No garbage where the models know nothing."""
    for text in ("hello", "thanks!", "who are you?", "What is the capital of Zorbovia?", "asdf"):
        reply = atlas.chat([{"role": "user", "content": text}], max_tokens=80)
        assert reply.finish_reason == "stop"
        assert reply.text[0].isupper()
        assert reply.text.rstrip()[-1] in ".?!"
