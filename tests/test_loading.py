"""Three GGUFs fused: against llama-cpp-python's own `Llama`, for any draft, through any door."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import eftlocal
from eftlocal.errors import ContextFull, ModelFileError, PromptError, UsageError, VocabularyMismatch

from .conftest import N_VOCAB, SMALL, Trio
from .gguf_models import ModelShape, write_gguf
from .rescoring import (
    NO_END,
    PROMPT,
    assert_same_but_for_ties,
    expected_logprobs,
    load,
    rescore,
)


@pytest.fixture(scope="module")
def model(trio: Trio) -> Iterator[eftlocal.FusedModel]:
    """The trio, loaded once."""
    with load(trio) as loaded:
        yield loaded


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0, -0.5])
@pytest.mark.parametrize("kind", ["trio", "padded_trio"])
def test_logprobs_equal_a_recomputation_in_float64(
    kind: str, alpha: float, request: pytest.FixtureRequest
) -> None:
    """With the default kernels, `Llama` taking the same steps gives the same log-probs."""
    trio = request.getfixturevalue(kind)
    options = {"alpha": alpha, "draft": "off", "logit_bias": NO_END}
    with load(trio, max_tokens=60, seed=5, **options) as fused:
        assert fused.n_vocab == N_VOCAB
        done = fused.complete(PROMPT)
    prompt, tokens = done.prompt_tokens, done.tokens
    steps = [prompt[:-1], prompt[-1:], *([token] for token in tokens)]
    expected = expected_logprobs(rescore(trio, steps, alpha), done)
    np.testing.assert_allclose(done.logprobs, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("draft", ["off", 4, "auto"])
@pytest.mark.parametrize(("exact", "tolerance"), [(True, 1e-4), (False, 0.02)])
def test_logprobs_equal_a_rescore_in_one_batch(
    trio: Trio, draft: str | int, exact: bool, tolerance: float
) -> None:
    """The finished text scored in one batch: 1e-4 with exact kernels.

    With flash attention and a float16 cache llama.cpp itself rounds a row differently in another
    batch; 0.007 was the most seen here, 0.02 is allowed.
    """
    kernels = {"flash_attention": "off", "cache_type": "f32"} if exact else {}
    with load(trio, max_tokens=60, draft=draft, logit_bias=NO_END, seed=5, **kernels) as fused:
        done = fused.complete(PROMPT)
    whole = rescore(trio, [[*done.prompt_tokens, *done.tokens]], 1.0, exact)
    expected = expected_logprobs(whole, done)
    np.testing.assert_allclose(done.logprobs, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("n", range(2, 9))
def test_any_draft_gives_the_same_text(
    model: eftlocal.FusedModel, trio: Trio, n: int, temperature: float
) -> None:
    """With n = 2 to 8 the text is that of n = 1, or differs first at a near-tie."""
    options = {"temperature": temperature, "max_tokens": 100, "logit_bias": NO_END}
    plain = model.complete(PROMPT, draft="off", **options)
    drafted = model.complete(PROMPT, draft=n, **options)
    assert_same_but_for_ties(trio, drafted, plain, temperature)
    assert drafted.timings.rounds < 100
    assert drafted.timings.accepted > 0


def test_padding_is_never_sampled(padded_trio: Trio) -> None:
    """At a temperature that makes all tokens alike, every id has a meaning."""
    with load(padded_trio, temperature=100.0, logit_bias=NO_END) as fused:
        tokens = fused.complete(PROMPT, max_tokens=400).tokens
        assert max(tokens) < N_VOCAB
        assert len(set(tokens)) > 300
        with pytest.raises(UsageError, match=str(N_VOCAB - 1)):
            fused.complete([1, N_VOCAB])


def test_two_conversations_at_once(trio: Trio, model: eftlocal.FusedModel) -> None:
    """Two interleaved streams over two sequences give the texts of each alone."""
    options = {"max_tokens": 30, "temperature": 0, "logit_bias": NO_END}
    prompts = [PROMPT, "A completely different beginning"]
    alone = [model.complete(prompt, **options).text for prompt in prompts]
    with load(trio, parallel=2) as fused:
        streams = [fused.stream_complete(prompt, **options) for prompt in prompts]
        texts = ["", ""]
        for _ in range(30):
            for i, stream in enumerate(streams):
                texts[i] += next(stream).text
    assert texts == alone


def test_a_second_turn_evaluates_only_new_tokens(model: eftlocal.FusedModel) -> None:
    """The reply's own token ids stay in the caches, even where its text tokenizes otherwise."""
    messages = [{"role": "user", "content": "Tell me something about foxes."}]
    first = model.chat(messages, max_tokens=40, logit_bias=NO_END)
    messages += [
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "And?"},
    ]
    second = model.chat(messages, max_tokens=5)
    evaluated = second.timings.prompt_tokens - second.timings.cached_tokens
    assert second.timings.cached_tokens == len(first.prompt_tokens) + len(first.tokens) - 1
    assert second.prompt_tokens[: len(first.prompt_tokens) + 40] == (
        *first.prompt_tokens,
        *first.tokens,
    )
    assert evaluated < 15


def test_streams_end_cancel_and_resume(model: eftlocal.FusedModel) -> None:
    """A cancelled stream keeps what it had; a new stream ends an abandoned one."""
    options = {"max_tokens": 50, "temperature": 0, "logit_bias": NO_END}
    whole = model.complete(PROMPT, **options)
    stream = model.stream_complete(PROMPT, **options)
    text = "".join(next(stream).text for _ in range(10))
    stream.cancel()
    assert list(stream) == []
    assert stream.completion.finish_reason == "cancelled"
    assert stream.completion.tokens == whole.tokens[:10]
    assert whole.text.startswith(text)
    held = model.stream_complete(PROMPT, stop=[whole.text[:9] + "never"], **options)
    next(held)
    held.cancel()
    assert list(held) == []
    assert held.completion.text == held.completion.text != ""
    abandoned = model.stream_complete(PROMPT, **options)
    next(abandoned)
    assert model.complete(PROMPT, **options).tokens == whole.tokens
    assert len(list(abandoned)) == 0


def test_stop_strings_end_the_text(model: eftlocal.FusedModel) -> None:
    """The text ends before the stop string for any draft, and the next text is unharmed."""
    options = {"max_tokens": 60, "temperature": 0, "logit_bias": NO_END}
    whole = model.complete(PROMPT, **options).text
    stop = whole[25:28]
    for draft in ("off", 4):
        cut = model.complete(PROMPT, stop=[stop], draft=draft, **options)
        assert cut.text == whole[: whole.index(stop)]
        assert cut.finish_reason == "stop"
        events = list(model.stream_complete(PROMPT, stop=[stop], draft=draft, **options))
        assert "".join(event.text for event in events) == cut.text
        assert events[-1].finish_reason == "stop"
    assert model.complete(PROMPT, **options).text == whole


def test_one_file_is_loaded_once(trio: Trio, tmp_path: Path) -> None:
    """The same file under two names is one set of weights; base = reference leaves the tuned."""
    link = tmp_path / "link.gguf"
    os.symlink(trio.tuned, link)
    same = Trio(trio.base, trio.tuned, link)
    options = {"temperature": 0, "max_tokens": 20}
    with load(same, **options) as fused, load(Trio(*[trio.base] * 3), **options) as base:
        assert len(fused.engine.ensemble.contexts) == 2
        assert len(base.engine.ensemble.contexts) == 1
        assert fused.complete(PROMPT).tokens == base.complete(PROMPT, draft=4).tokens
    tuned = Trio(trio.reference, trio.tuned, trio.reference)
    with load(tuned, **options) as fused, load(Trio(*[trio.tuned] * 3), **options) as alone:
        assert fused.complete(PROMPT).tokens == alone.complete(PROMPT).tokens


def with_one_other_token(folder: Path, shape: ModelShape) -> Path:
    """A reference whose token 700 has another text of the same length."""
    file = write_gguf(folder / "other.gguf", shape, seed=3)
    with load(Trio(*[file] * 3)) as fused:
        raw = fused.vocabulary.raw(700)
    data = file.read_bytes()
    length = len(raw).to_bytes(8, "little")
    assert data.count(length + raw) == 1
    file.write_bytes(data.replace(length + raw, length + raw[:-1] + b"~"))
    return file


def test_foreign_vocabularies_are_refused(trio: Trio, tmp_path: Path) -> None:
    """The error names the first token that differs, and both files."""
    other = with_one_other_token(tmp_path, SMALL)
    with pytest.raises(VocabularyMismatch, match=r"token 700 .*base\.gguf.*other\.gguf"):
        load(Trio(trio.base, trio.tuned, other))
    bigger = write_gguf(tmp_path / "bigger.gguf", ModelShape(n_vocab=N_VOCAB + 9), seed=3)
    with pytest.raises(VocabularyMismatch, match=rf"token {N_VOCAB} is missing.*bigger\.gguf"):
        load(Trio(trio.base, trio.tuned, bigger))


def test_wrong_calls_say_what_is_wrong(trio: Trio, tmp_path: Path) -> None:
    """Files that are missing or incomplete, and options that do not exist, are one clear line."""
    with pytest.raises(ModelFileError, match=r"nowhere\.gguf: no such file"):
        load(Trio(trio.base, trio.tuned, tmp_path / "nowhere.gguf"))
    with pytest.raises(UsageError, match="reference missing"):
        eftlocal.load(base=trio.base, tuned=trio.tuned)
    with pytest.raises(UsageError, match="not both"):
        eftlocal.load("atlas", base=trio.base)
    with pytest.raises(UsageError, match="temprature"):
        load(trio, temprature=1)
    with pytest.raises(UsageError, match="threads"):
        load(trio, threads=-1)


def test_a_closed_model_refuses_to_work(trio: Trio) -> None:
    """Every use of a model after close is an error, not an abort in C; closing twice is fine."""
    fused = load(trio)
    stream = fused.stream_complete(PROMPT)
    next(stream)
    fused.close()
    fused.close()
    assert list(stream) == []
    for use in (fused.complete, fused.tokenize, fused.stream_complete):
        with pytest.raises(UsageError, match="closed"):
            use(PROMPT)
    with pytest.raises(UsageError, match="closed"):
        fused.token_text(5)


def test_prompts_that_cannot_work(model: eftlocal.FusedModel, trio: Trio) -> None:
    """Too long, empty, no template, no such role: one clear line each, and the model goes on."""
    with pytest.raises(ContextFull, match="holds 512"):
        model.complete("x " * 2000)
    with pytest.raises(UsageError, match="empty"):
        model.complete([])
    with pytest.raises(PromptError, match="role"):
        model.chat([{"role": "robot", "content": "hi"}])
    with (
        load(Trio(*[trio.base] * 3)) as plain,
        pytest.raises(PromptError, match="no chat template"),
    ):
        plain.chat([{"role": "user", "content": "hi"}])
    assert model.complete(PROMPT, max_tokens=2).timings.generated_tokens == 2


def write_entry(folder: Path, trio: Trio, extra: str = "") -> Path:
    """A user's models.toml with the trio under the name mine."""
    lines = [f'{role} = {{ path = "{getattr(trio, role)}" }}' for role in trio._fields]
    file = folder / "models.toml"
    file.write_text("\n".join(["[models.mine]", *lines, "threads = 1", extra]) + "\n")
    return file


def test_an_entry_may_keep_the_template_from_base_and_reference(trio: Trio, tmp_path: Path) -> None:
    """With prompt = "tuned-only" each context reads its own prompt to the same completion."""
    messages = [{"role": "user", "content": "Hello you"}]
    models = write_entry(tmp_path, trio, 'prompt = "tuned-only"')
    with eftlocal.load("mine", models=models, temperature=0, max_tokens=12) as fused:
        done = fused.chat(messages, logit_bias=NO_END)
        assert done.prompt_tokens == tuple(fused.tokenize("User: Hello you\nAssistant:", True))
        held = [context.tokens(0) for context in fused.engine.ensemble.contexts]
        is_control = fused.vocabulary.is_control
        markers = [sum(map(is_control, tokens[:-11])) for tokens in held]
    ends = [tokens[-11:] for tokens in held]
    assert ends == [list(done.tokens[:-1])] * 3
    assert markers[1] > markers[0] == markers[2] == 1


def test_models_that_are_not_downloaded_say_how_to_get_them(tmp_path: Path, trio: Trio) -> None:
    """An entry of the hub that is not in the cache is one line with the next step."""
    file = write_entry(tmp_path, trio)
    text = file.read_text().replace(str(trio.base), "x")
    hub = 'base = { hf = "nobody/nothing-GGUF", file = "nothing.Q8_0.gguf" }'
    file.write_text(text.replace('base = { path = "x" }', hub))
    with pytest.raises(eftlocal.NotDownloaded, match=r"nothing-GGUF/nothing.*eftlocal pull mine$"):
        eftlocal.load("mine", models=file)
    one = "hf:nobody/nothing-GGUF/nothing.Q8_0.gguf"
    with pytest.raises(eftlocal.NotDownloaded, match=f"eftlocal pull {one}$"):
        eftlocal.load(base=one, tuned=trio.tuned, reference=trio.reference)


def test_a_prompt_of_megabytes_is_refused_before_it_is_tokenized(trio: Trio) -> None:
    """Its beginning alone has too many tokens; the message says so."""
    with load(trio, ctx=256) as model:
        with pytest.raises(eftlocal.ContextFull, match="more than"):
            model.prepare_complete("every word of it " * 100_000)
        with pytest.raises(eftlocal.ContextFull, match="more than"):
            model.prepare_chat([{"role": "user", "content": "every word of it " * 100_000}])
