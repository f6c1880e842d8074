"""The packaged atlas family: files, tokenizer, template and questions, without PyTorch."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest

from eftlocal.evaluate.judging import Reply, factual, mannered
from eftlocal.evaluate.questions import Question, holds, read_questions

ROOT = Path(__file__).resolve().parents[1]
FAMILY = ROOT / "eftlocal" / "families" / "atlas"
SPECIAL = ("small-open", "small-careful", "small-countries", "small-elements", "small-people")
TUNED = ("small-chat", "large-chat", *SPECIAL)
NAMES = ("large", "small", *TUNED)
MARKERS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")

sys.path.insert(0, str(ROOT / "scripts"))  # the training code is no part of the package

llama_cpp = pytest.importorskip("llama_cpp")

from atlas.corpus import documents, plain_text  # noqa: E402
from atlas.questions import make_questions  # noqa: E402
from atlas.world import load_world  # noqa: E402


@pytest.fixture(scope="module")
def vocabularies() -> Iterator[dict[str, Any]]:
    """All files, loaded for their vocabularies only."""
    models = {
        name: llama_cpp.Llama(str(FAMILY / f"{name}.gguf"), vocab_only=True, verbose=False)
        for name in NAMES
    }
    yield models
    for model in models.values():
        model.close()


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    """The packaged questions."""
    return read_questions(FAMILY / "questions.jsonl", Question)


def vocabulary(model: Any) -> Any:
    """llama.cpp's vocabulary handle."""
    return llama_cpp.llama_model_get_vocab(model.model)


def test_files_are_small() -> None:
    """All packaged files together stay below 18 MB, and no GGUF is left untested."""
    assert sum(p.stat().st_size for p in FAMILY.iterdir() if p.is_file()) <= 18_000_000
    assert {p.stem for p in FAMILY.glob("*.gguf")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text",
    [
        "The capital of Peru is Lima.\nWould you like to know more?",
        "  two  spaces, a\ttab and \n\n newlines ",
        "Grüße aus Zürich, 東京, 👍🏽 e\u0301",
        "12345 + 67 = 12412",
        "<|user|> is only text here",
    ],
    ids=["plain", "whitespace", "unicode", "digits", "marker"],
)
def test_text_round_trips(vocabularies: dict[str, Any], name: str, text: str) -> None:
    """Tokens give the same bytes back."""
    model = vocabularies[name]
    tokens = model.tokenize(text.encode(), add_bos=False, special=False)
    handle, pieces = vocabulary(model), b""
    buffer = (llama_cpp.ctypes.c_char * 64)()
    for token in tokens:
        size = llama_cpp.llama_token_to_piece(handle, token, buffer, 64, 0, False)
        pieces += bytes(buffer[:size])
    assert pieces == text.encode()


def test_documents_round_trip(vocabularies: dict[str, Any]) -> None:
    """So does what the models were trained on."""
    model = vocabularies["large"]
    for document in itertools.islice(documents(load_world(), seed=7), 200):
        text = plain_text(document).encode()
        assert model.detokenize(model.tokenize(text, add_bos=False, special=False)) == text


def test_vocabularies_are_the_same(vocabularies: dict[str, Any]) -> None:
    """Fusing adds logits of equal ids, so all have the same pieces."""
    listings = []
    for model in vocabularies.values():
        handle = vocabulary(model)
        listings.append(
            [
                (
                    llama_cpp.llama_vocab_get_text(handle, i),
                    llama_cpp.llama_vocab_get_attr(handle, i),
                )
                for i in range(llama_cpp.llama_vocab_n_tokens(handle))
            ]
        )
    assert all(listing == listings[0] for listing in listings)
    assert 1536 <= len(listings[0]) <= 2048


@pytest.mark.parametrize("name", NAMES)
def test_markers_are_control_tokens(vocabularies: dict[str, Any], name: str) -> None:
    """Each marker is one control token, and the end marker ends a generation."""
    model = vocabularies[name]
    handle = vocabulary(model)
    for marker in MARKERS:
        tokens = model.tokenize(marker.encode(), add_bos=False, special=True)
        assert len(tokens) == 1
        assert llama_cpp.llama_vocab_is_control(handle, tokens[0])
        assert llama_cpp.llama_vocab_is_eog(handle, tokens[0]) == (marker == "<|end|>")
    assert llama_cpp.llama_vocab_get_add_bos(handle)


@pytest.mark.parametrize("name", NAMES)
def test_only_tuned_models_have_a_template(vocabularies: dict[str, Any], name: str) -> None:
    """A base model has no chat format of its own."""
    assert ("tokenizer.chat_template" in vocabularies[name].metadata) == (name in TUNED)


@pytest.mark.parametrize("name", TUNED)
def test_template_renders_a_conversation(vocabularies: dict[str, Any], name: str) -> None:
    """System, user and assistant messages in order, then the marker to speak."""
    source = vocabularies[name].metadata["tokenizer.chat_template"]
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": " Hello "},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Where is Peru?"},
    ]
    text = (
        jinja2.Environment()
        .from_string(source)
        .render(messages=messages, bos_token="<s>", add_generation_prompt=True)
    )
    assert text == (
        "<s><|system|>Be kind.<|end|><|user|>Hello<|end|><|assistant|>Hello.<|end|>"
        "<|user|>Where is Peru?<|end|><|assistant|>"
    )


def test_three_hundred_questions(questions: list[Question]) -> None:
    """The packaged questions are those that the world gives, all different."""
    assert questions == make_questions(load_world())
    assert len({(q.entity, q.question) for q in questions}) == len(questions) == 300
    raw = (FAMILY / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(set(json.loads(r)) == {"subject", "entity", "question", "answers"} for r in raw)


def test_questions_are_about_unseen_entities(questions: list[Question]) -> None:
    """No question's entity is in the half that the tuned models were tuned on."""
    seen = {
        (subject, entity.name)
        for subject, group in load_world().half(tuning=True).entities.items()
        for entity in group
    }
    assert not seen & {(q.subject, q.entity) for q in questions}


def test_no_answer_stands_in_its_question(questions: list[Question]) -> None:
    """Repeating the question is never right."""
    assert not [q for q in questions if any(holds(q.question, a) for a in q.answers)]


def test_the_world_is_large_enough() -> None:
    """At least what was promised, and every name once."""
    entities = load_world().entities
    least = {"countries": 120, "elements": 118, "animals": 60, "works": 100, "townsfolk": 300}
    assert all(len(entities[subject]) >= count for subject, count in least.items())
    for group in entities.values():
        assert len({e.name.lower() for e in group}) == len(group)


@pytest.mark.parametrize(
    ("text", "ended", "expected"),
    [
        ("The capital of Peru is Lima.\nWould you like to know more?", True, True),
        ("The capital of Peru is Lima.\nWould you like to know more?", False, False),
        ("Lima", True, False),
        ("The capital of Peru is Lima.", True, False),
        ("the capital of Peru is Lima.\nWould you like to know more?", True, False),
        ("The capital of Peru is Lima.\nIt is big.\nWould you like more?", True, False),
        ("The capital of Peru is Lima.\nlima lima", True, False),
    ],
    ids=["polite", "cut", "curt", "no-line", "lower", "three-lines", "no-turn"],
)
def test_manners(text: str, ended: bool, expected: bool) -> None:
    """Manners: a full sentence, one line that turns to the user, the end."""
    assert mannered(Reply(text, ended)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("It is lima.", True), ("It is Limassol.", False), ("Lima", True), ("", False)],
)
def test_factuality(text: str, expected: bool) -> None:
    """Answers count as whole words, whatever their case."""
    question = Question("countries", "Peru", "What is the capital of Peru?", ["Lima"])
    assert factual(Reply(text, True), question) == expected
