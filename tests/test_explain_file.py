"""Trace files: what is written is read back, and what is no trace is told in one line."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eftlocal
from eftlocal.errors import EftlocalError, UsageError
from eftlocal.explain import Reply, TraceWriter, read_trace
from eftlocal.explain.tracefile import piece_text
from eftlocal.generation import TokenEvent

from .conftest import Trio
from .rows import many
from .traces import PIECES, events, header, reply

tokens = st.lists(st.one_of(st.none(), st.integers(0, len(PIECES) - 1)), min_size=1, max_size=12)


def write(path: Path, found: list[TokenEvent], experts: int = 1) -> None:
    """Append a reply to a file."""
    with TraceWriter(path) as writer:
        writer.begin(header([f"e{i}" for i in range(experts)]), PIECES.__getitem__)
        for item in found:
            writer.write(item)


def one_line(path: Path) -> str:
    """The message that reading a file fails with."""
    with pytest.raises(UsageError) as failure:
        read_trace(path)
    message = str(failure.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A trace of two replies of four tokens each."""
    path = tmp_path / "trace.jsonl"
    for seed in (1, 2):
        write(path, events([3, 4, None, 2], [(1.0,)] * 4, seed))
    return path


@many
@given(tokens, st.integers(1, 3), st.integers(0, 1000))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, chosen: list[int | None], n: int, seed: int
) -> None:
    """Every field of every token is the same after reading, texts of all ids included."""
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    alphas = [(0.5, 0.25, -0.25)[:n]] * len(chosen)
    found = events(chosen, alphas, seed)
    write(path, found, n)
    (saved,) = read_trace(path)
    assert saved == reply(chosen, alphas, header([f"e{i}" for i in range(n)]), seed)
    assert [token.trace for token in saved.tokens] == [item.trace for item in found]
    assert saved.text == "".join(item.text for item in found)
    assert all(saved.pieces[i] == piece_text(PIECES[i]) for i in saved.pieces)
    assert not saved.is_cut


def test_infinite_numbers_are_read_back(tmp_path: Path) -> None:
    """JSON has no infinity; excluded tokens and endless divergences survive all the same."""
    (made,) = events([3], [(1.0,)])
    assert made.trace is not None
    view = replace(made.trace.base, logprobs=(-math.inf, *made.trace.base.logprobs[1:]))
    trace = replace(made.trace, base=view, kl_fused_base=math.inf, kl_tuned_reference=(math.inf,))
    path = tmp_path / "trace.jsonl"
    write(path, [replace(made, trace=trace, logprob=-math.inf)])
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (token,) = read_trace(path)[0].tokens
    assert token.trace == trace
    assert token.logprob == -math.inf


def test_lines_are_there_at_once(tmp_path: Path) -> None:
    """Each token can be read while the reply goes on; a reply without tokens leaves nothing."""
    path = tmp_path / "trace.jsonl"
    found = events([3, 4, 5], [(1.0,)] * 3)
    with TraceWriter(path) as writer:
        writer.begin(header(), PIECES.__getitem__)
        assert path.read_text() == ""
        for count, item in enumerate(found, 1):
            writer.write(item)
            assert len(read_trace(path)[0].tokens) == count


def test_replies_are_appended(path: Path) -> None:
    """A file keeps its replies in order."""
    before = read_trace(path)
    write(path, events([5], [(1.0,)], 7))
    after = read_trace(path)
    assert after[:2] == before
    assert [len(item.tokens) for item in after] == [4, 4, 1]


def test_a_cut_last_line_is_left_out(path: Path) -> None:
    """Wherever the last line is cut, the tokens before it are read, and the reply says so."""
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for size in range(last + 1, len(whole) - 2, 97):
        path.write_bytes(whole[:size])
        replies = read_trace(path)
        assert [len(item.tokens) for item in replies] == [4, 3]
        assert [item.is_cut for item in replies] == [False, True]


def test_a_cut_reply_may_be_followed_by_another(path: Path) -> None:
    """Appending to a file that ends in the middle of a line keeps both replies readable."""
    path.write_bytes(path.read_bytes()[:-50])
    write(path, events([5], [(1.0,)], 7))
    assert [(len(item.tokens), item.is_cut) for item in read_trace(path)] == [
        (4, False), (3, True), (1, False),
    ]  # fmt: skip


def changed(line: str, **fields: object) -> str:
    """A line with other fields; those of the trace are written trace__name."""
    content = json.loads(line)
    for name, value in fields.items():
        *outer, name = name.split("__")
        part = content
        for key in outer:
            part = part[key]
        if value is ...:
            del part[name]
        else:
            part[name] = value
    return json.dumps(content)


DAMAGED = {
    "no index": (1, {"index": ...}, "index"),
    "other index": (2, {"index": 0}, "token 0 where token 1"),
    "token": (1, {"token": -1}, "-1"),
    "text": (1, {"text": 3}, "3 is not a text"),
    "logprob": (1, {"logprob": "a"}, "'a' is not a number"),
    "huge": (1, {"logprob": 10**400}, "is not a number"),
    "reason": (1, {"finish_reason": "x"}, "finish_reason"),
    "no trace": (1, {"trace": None}, "object is missing"),
    "origin": (1, {"trace__origin": "x"}, "agreement"),
    "alphas": (1, {"trace__alpha": [1, 2]}, "entries for 2 experts"),
    "ids": (1, {"trace__ids": [1]}, "log-probs for 1 ids"),
    "view": (1, {"trace__base": []}, "object is missing"),
    "experts": (0, {"experts": ["a", "b"]}, "names experts"),
    "pieces": (1, {"pieces": {}}, "texts of token ids"),
    "piece": (1, {"pieces": {"x": "y"}}, "texts of token ids"),
    "version": (0, {"version": 2}, "version 2, this eftlocal reads 1"),
    "format": (0, {"format": "x"}, "format"),
    "files": (0, {"files": {"base": 1}}, "names"),
    "options": (0, {"options": []}, "options"),
    "option": (0, {"options": {"alfa": 1}}, "unknown option 'alfa'"),
    "alpha": (0, {"options__alpha": "fast"}, "dynamic"),
    "weight": (0, {"options__weight": {"x": 1}}, "weight = x"),
}


@pytest.mark.parametrize(("row", "fields", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_lines(path: Path, row: int, fields: dict[str, object], message: str) -> None:
    """What does not fit the format is named with its line."""
    lines = path.read_text().splitlines()
    lines[row] = changed(lines[row], **fields)
    path.write_text("\n".join(lines))
    found = one_line(path)
    assert message in found
    assert f"line {row + 1}" in found or "experts" in fields


@pytest.mark.parametrize(
    "content",
    ["", "\n", "hello\n", "[1]\n", '{"a": 1}\n', '{"index": 0}\n', "[" * 10**5, "\x00\xff"],
    ids=["empty", "blank", "words", "list", "object", "token", "deep", "bytes"],
)
def test_other_files_are_no_traces(tmp_path: Path, content: str) -> None:
    """Other files are told apart by their first line."""
    path = tmp_path / "other"
    path.write_text(content, encoding="latin-1")
    assert "no trace" in one_line(path)


def test_lines_in_the_middle_must_be_whole(path: Path) -> None:
    """A broken line that does not end its reply is an error, not a shorter reply."""
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:40]
    path.write_text("\n".join(lines))
    assert "line 4" in one_line(path)


def test_other_files_are_not_appended_to(tmp_path: Path) -> None:
    """A model or a text is never written to; folders and lost paths are told in one line."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF\x00\n")
    with pytest.raises(UsageError, match="no trace"):
        TraceWriter(path)
    assert path.read_bytes() == b"GGUF\x00\n"
    for lost in (tmp_path, tmp_path / "no" / "trace.jsonl"):
        with pytest.raises(EftlocalError, match=r"cannot write .*: (Is a|No such)"):
            TraceWriter(lost)
    with pytest.raises(EftlocalError, match="cannot read"):
        read_trace(tmp_path / "no.jsonl")


def test_tokens_need_traces_and_a_reply(tmp_path: Path) -> None:
    """Events without traces, and before a reply, are refused."""
    with TraceWriter(tmp_path / "trace.jsonl") as writer:
        with pytest.raises(UsageError, match="begin"):
            writer.write(events([3], [(1.0,)])[0])
        writer.begin(header(), PIECES.__getitem__)
        with pytest.raises(UsageError, match="trace=True"):
            writer.write(TokenEvent(3, -1.0, (1.0,)))


def test_a_stream_can_be_followed(trio: Trio, tmp_path: Path) -> None:
    """Python writes what the stream yields; a failure ends writing, and not the stream."""
    path = tmp_path / "trace.jsonl"
    failures: list[EftlocalError] = []
    with eftlocal.load(**trio._asdict(), threads=1) as model, TraceWriter(path) as writer:
        options = {"max_tokens": 8, "seed": 3, "trace": True, "draft": "off"}
        stream = model.stream_complete("the other", alpha=0.5, **options)
        writer.follow(model, stream)
        found = list(stream)
        untraced = model.stream_complete("the other", max_tokens=4)
        writer.follow(model, untraced, failures.append)
        assert len(list(untraced)) == 4
        expected = model.complete("the other", alpha=0.5, **options)
    (saved,) = read_trace(path)
    assert isinstance(saved, Reply)
    assert [token.trace for token in saved.tokens] == [item.trace for item in found]
    assert tuple(token.trace for token in saved.tokens) == expected.traces
    assert saved.text == expected.text
    assert saved.header.prompt_tokens == expected.prompt_tokens
    assert saved.header.options["alpha"] == 0.5
    assert saved.header.files["base"] == "base.gguf"
    assert len(failures) == 1


def test_traces_are_made_of_the_models_own_rows(trio: Trio) -> None:
    """Base and tuned views are what these models say alone, and alpha 0 is the base."""
    options = {"max_tokens": 4, "draft": "off", "temperature": 0, "trace": True, "top_logprobs": 5}
    with eftlocal.load(**trio._asdict(), threads=1) as model:
        fused = model.complete("the other", alpha=0, **options)
    with eftlocal.load(base=trio.base, tuned=trio.base, reference=trio.base, threads=1) as model:
        alone = model.complete("the other", **options)
    assert fused.tokens == alone.tokens
    for mine, other in zip(fused.traces, alone.traces, strict=True):
        assert mine.base.top == other.fused.top
        assert mine.base.top_probability == pytest.approx(other.fused.top_probability, abs=1e-5)
        assert mine.kl_fused_base == pytest.approx(0, abs=1e-6)
        assert other.total_variation == pytest.approx((0,), abs=1e-5)


def test_drafts_have_the_same_traces(trio: Trio) -> None:
    """Tokens that were drafted are described like those that were decided one by one."""
    options = {"max_tokens": 12, "temperature": 0, "trace": True}
    with eftlocal.load(**trio._asdict(), threads=1) as model:
        plain = model.complete("the other", **options)
        drafted = model.complete("the other", draft=4, **options)
    assert drafted.timings.drafted > 0
    assert len(drafted.traces) == len(drafted.tokens) == 12
    for one, other in zip(plain.traces, drafted.traces, strict=True):
        assert one.total_variation == pytest.approx(other.total_variation, abs=1e-3)
        assert (one.origin, one.fused.top) == (other.origin, other.fused.top)


def test_without_traces_nothing_is_described(trio: Trio) -> None:
    """By default events and completions have none."""
    with eftlocal.load(**trio._asdict(), threads=1) as model:
        assert model.complete("the other", max_tokens=3).traces == ()
        assert all(item.trace is None for item in model.stream_complete("a", max_tokens=3))


def test_parts_of_characters_are_written_as_escapes() -> None:
    """What is no text by itself stays readable."""
    assert piece_text(b"\xe2\x82") == "\\xe2\\x82"
    assert piece_text("é".encode()) == "é"
