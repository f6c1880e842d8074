"""The model of lm-evaluation-harness: scores, replies and prompts against the Python API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import eftlocal
from eftlocal import UsageError

from .full_server import ATLAS, COMPLETIONS, serve
from .lm_eval_tasks import COUNT, items, run_lm_eval, write_tasks

pytest.importorskip("lm_eval")

from eftlocal.evaluate.tasks.arguments import read_setup
from eftlocal.evaluate.tasks.chat import going_on
from eftlocal.evaluate.tasks.gen_kwargs import read_settings, wanted
from eftlocal.evaluate.tasks.local import atlas_choices
from eftlocal.evaluate.tasks.model import EftlocalLM

FRANCE = "What is the capital of France?"
FAMILY = Path(eftlocal.__file__).parent / "families" / "atlas"
TUNED_ONLY = """
[models.plain-base]
base = { path = "{FOLDER}/large.gguf" }
tuned = { path = "{FOLDER}/small-chat.gguf" }
reference = { path = "{FOLDER}/small.gguf" }
prompt = "tuned-only"
why = "a test"
alpha = "dynamic"
"""


class Ask:
    """A request as the harness makes it."""

    def __init__(self, *args: Any) -> None:
        self.args = args


@pytest.fixture(scope="module")
def lm() -> Iterator[Any]:
    """The model of the harness, four requests at once."""
    made = EftlocalLM("atlas", batch_size=4, threads=1)
    yield made
    made.close()


def ask(question: str) -> list[dict[str, str]]:
    """A conversation of one question."""
    return [{"role": "user", "content": question}]


def test_scores_are_those_of_the_python_api(lm: Any, atlas: eftlocal.FusedModel) -> None:
    """To the last bit, whatever runs beside them; an end of a context counts as the harness does.

    White space that ends a context belongs to the continuation.
    """
    pairs = [(f"{i['question']}\nAnswer:", f" {c}") for i in items(6) for c in i["choices"]]
    pairs += [("The capital of France is ", "Paris"), pairs[0]]
    found = lm.loglikelihood([Ask(*pair) for pair in pairs])
    for (context, ending), (logprob, greedy) in zip(pairs, found, strict=True):
        start = len(atlas.tokenize(context.rstrip()))
        events = atlas.score(atlas.tokenize(context + ending), top_logprobs=1)[start - 1 :]
        assert logprob == sum(event.logprob for event in events)
        assert greedy == all(event.top[0][0] == event.token for event in events)
    assert {True, False} == {greedy for _, greedy in found}


def test_nothing_before_and_nothing_after(lm: Any, atlas: eftlocal.FusedModel) -> None:
    """BOS stands for an empty context; an empty continuation is certain."""
    ids = atlas.tokenize("Paris is the capital")
    (found,) = lm.loglikelihood([Ask("", "Paris is the capital")])
    events = atlas.score([atlas.vocabulary.bos, *ids])
    assert found[0] == sum(event.logprob for event in events)
    assert lm.loglikelihood([Ask("Paris", "")]) == [(0.0, True)]


@pytest.mark.parametrize("blank", ["\n", "  ", "\t\n"])
def test_contexts_of_white_space(lm: Any, atlas: eftlocal.FusedModel, blank: str) -> None:
    """It is a part of the continuation then, and BOS is the context."""
    text = "Paris is the capital of France."
    found = lm.loglikelihood([Ask(blank, text), Ask("", blank + text)])
    events = atlas.score([atlas.vocabulary.bos, *atlas.tokenize(blank + text)])
    assert found[0] == found[1] and found[0][0] == sum(event.logprob for event in events)
    assert not found[0][1]


def test_continuations_that_merge(lm: Any, atlas: eftlocal.FusedModel) -> None:
    """Into the last token of the context: they are scored as tokens of their own."""
    context, ending = "Fran", "c"
    ids = [*atlas.tokenize(context), *atlas.tokenize(ending)]
    assert len(atlas.tokenize(context + ending)) == len(atlas.tokenize(context)) == len(ids) - 1
    (found,) = lm.loglikelihood([Ask(context, ending)])
    assert found == (atlas.score(ids)[-1].logprob, False)
    nothing = [
        Ask(context, "") for context in ("", "\n", "Paris ", lm.apply_chat_template(ask("")))
    ]
    assert lm.loglikelihood(nothing) == [(0.0, True)] * 4


def test_no_space_is_put_before_what_goes_on(trio: Any) -> None:
    """Of tokenizers that put one before every text."""
    files: dict[str, Any] = {role: str(path) for role, path in trio._asdict().items()}
    with eftlocal.load(**files, threads=1) as model:
        vocabulary = model.vocabulary

        def tokenize(text: str) -> list[int]:
            return vocabulary.tokenize(text, add_special=False, parse_special=True)

        def text_of(ids: Sequence[int]) -> str:
            return b"".join(map(vocabulary.piece, ids)).decode()

        assert text_of(tokenize("c")) == " c"
        for text in ("c", " c", "cities", "\n"):
            assert text_of(going_on(tokenize, text)) == text


def test_rolling_windows_score_every_token_once(atlas: eftlocal.FusedModel) -> None:
    """A text longer than the context, in windows that end where the context does."""
    lm = EftlocalLM("atlas", ctx=32, threads=1)
    ids = atlas.tokenize(" ".join(item["question"] for item in items(8)))
    text = b"".join(atlas.vocabulary.piece(token) for token in ids).decode()
    (found,) = lm.loglikelihood_rolling([Ask(text)])
    ids, size, expected = lm.tok_encode(text), lm.max_length - 1, 0.0
    for start in range(0, len(ids), size):
        end = min(start + size, len(ids))
        begin = max(end - size, 0)
        before = [ids[begin - 1]] if begin else [lm.prefix_token_id]
        # The last window has a whole context, too, and scores what was not scored yet.
        events = lm.model.score([*before, *ids[begin:end]])
        expected += sum(event.logprob for event in events[start - begin :])
    assert len(ids) > 2 * size
    assert found == pytest.approx(expected, abs=1e-9)
    assert lm.changes.truncated == 0
    lm.close()


def test_long_prompts_are_cut_and_counted() -> None:
    """From the left, to what leaves room for the answer; never the answer."""
    lm = EftlocalLM("atlas", ctx=32, threads=1)
    context, ending = "Paris is the capital of France. " * 8 + "Rome is the", " capital of Italy"
    (found,) = lm.loglikelihood([Ask(context, ending)])
    head, rest = lm._encode_pair(context, ending)
    ids = [*head, *rest][-31:]
    events = lm.model.score(ids)[31 - len(rest) - 1 :]
    assert found[0] == sum(event.logprob for event in events)
    (text,) = lm.generate_until([Ask(context, {"max_gen_toks": 10, "until": ["."]})])
    assert text == lm.model.complete(head[-22:], max_tokens=10, stop=["."], temperature=0).text
    assert lm.changes.truncated == 2
    with pytest.raises(UsageError, match="max_gen_toks = 40"):
        lm.generate_until([Ask(context, {"max_gen_toks": 40})])
    with pytest.raises(UsageError, match="raise ctx"):
        lm.loglikelihood([Ask("Paris", " is" * 40)])
    messages = [*ask("What is the capital of Chile?"), {"role": "assistant", "content": "Santiago"}]
    prompt = lm.apply_chat_template([*messages * 6, *ask("Name it.")])
    assert list(prompt.messages[-1:]) == ask("Name it.") and lm.changes.shortened == 1
    lm.close()


def test_replies_are_those_of_the_python_api(lm: Any, atlas: eftlocal.FusedModel) -> None:
    """Of raw texts and of conversations, those whose reply was begun included."""
    kwargs = {"until": ["\n"], "max_gen_toks": 20, "do_sample": False}
    chat = lm.apply_chat_template(ask(FRANCE))
    begun = [*ask(FRANCE), {"role": "assistant", "content": "The capital of"}]
    prompt = lm.apply_chat_template(begun, add_generation_prompt=False)
    found = lm.generate_until([Ask(text, kwargs) for text in (FRANCE, chat, prompt)])
    options: dict[str, Any] = {"max_tokens": 20, "stop": ["\n"], "temperature": 0}
    assert found[0] == atlas.complete(atlas.tokenize(FRANCE), **options).text
    assert found[1] == atlas.chat(ask(FRANCE), **options).text
    assert prompt.endswith("The capital of") and "The capital of" + found[2] == found[1]


def test_repeated_requests_are_samples(lm: Any) -> None:
    """The same sampled request twice gives two texts, and the same ones again."""
    kwargs = {"max_gen_toks": 12, "do_sample": True, "temperature": 1.5, "seed": 3}
    twice = [Ask("Once", kwargs)] * 2
    first = lm.generate_until(twice)
    assert first[0] != first[1] and first == lm.generate_until(twice)


def test_models_that_read_other_prompts(tmp_path: Path) -> None:
    """Where base and tuned model are told different things, each gets its own prompt."""
    path = tmp_path / "models.toml"
    path.write_text(TUNED_ONLY.replace("{FOLDER}", FAMILY.as_posix()), encoding="utf-8")
    lm = EftlocalLM("plain-base", models=path, batch_size=2, threads=1)
    prompt = lm.apply_chat_template(ask(FRANCE))
    assert prompt.startswith("<|user|>")
    expected = lm.model.chat(ask(FRANCE), temperature=0, draft="off", max_tokens=12)
    (text,) = lm.generate_until([Ask(prompt, {"max_gen_toks": 12})])
    assert text == expected.text
    ids = [token for token in expected.tokens if token not in lm.model.engine.eog]
    answer = b"".join(lm.model.vocabulary.piece(token) for token in ids).decode()
    assert lm._chat.rest(prompt + answer, answer) == tuple(ids)
    (right, wrong) = lm.loglikelihood([Ask(prompt, answer), Ask(prompt, "Rome.")])
    assert right[0] == pytest.approx(sum(expected.logprobs[: len(ids)]), abs=1e-4) and right[1]
    assert not wrong[1] and wrong[0] < 0
    lm.close()


def test_prompts_that_are_reused(lm: Any) -> None:
    """Scores of continuations alone differ by rounding, which flash attention has."""
    pairs = [Ask(f"{i['question']}\nAnswer:", f" {c}") for i in items(3) for c in i["choices"]]
    exact: dict[str, Any] = {"threads": 1, "flash_attention": "off"}
    whole = EftlocalLM("atlas", batch_size=2, **exact)
    alone = EftlocalLM("atlas", batch_size=2, reuse_prompts=True, **exact)
    expected, found = whole.loglikelihood(pairs), alone.loglikelihood(pairs)
    for one, other in zip(found, expected, strict=True):
        assert one[0] == pytest.approx(other[0], abs=1e-3) and one[1] == other[1]
    whole.close()
    alone.close()


def test_generation_settings() -> None:
    """The harness's names and ours; what is unknown is refused by name."""
    found = wanted({"until": "\n", "max_new_tokens": "7", "do_sample": True, "top_p": 0.5})
    assert found.max_tokens == 7
    expected = {"stop": ("\n",), "max_tokens": 7, "temperature": 1.0, "top_p": 0.5}
    assert found.options == expected
    assert wanted({"do_sample": False, "temperature": 0.8}).options["temperature"] == 0
    assert wanted({"temperature": 0.8}).options["temperature"] == 0.8
    assert wanted({}).options == {"stop": (), "max_tokens": 256, "temperature": 0.0}
    for bad in ({"penalty_alpha": 1}, {"num_beams": 4}, {"max_gen_toks": 0}, {"top_p": 3}):
        with pytest.raises(UsageError, match=next(iter(bad))):
            wanted(bad)


def test_generation_settings_of_a_command_line() -> None:
    """JSON keeps its letters and its commas; words are read in any case."""
    text = 'until=["Q:","A, b=c"],do_sample=TRUE,seed=none,top_p=0.5,stop=Q:'
    expected = {"until": ["Q:", "A, b=c"], "do_sample": True, "seed": None, "top_p": 0.5}
    assert read_settings(text) == {**expected, "stop": "Q:"}
    assert read_settings('until=["Q:') == {"until": '["Q:'}
    for bad in ("4", "=4", "top_p=1,"):
        with pytest.raises(UsageError, match="use NAME=VALUE"):
            read_settings(bad)


def test_arguments_of_the_harness() -> None:
    """One mapping, as command lines and callers give it; wrong values are named."""
    passed_to_all = {"device": "cpu", "max_batch_size": 4}
    given = {"batch_size": "3", "ctx": 32, "reuse_prompts": True, "top_p": 0.5, **passed_to_all}
    setup = read_setup("atlas", given)
    assert setup.reuse_prompts and not setup.add_bos_token and setup.max_gen_toks == 256
    assert setup.system.models.entry == "atlas" and setup.store is None
    assert setup.system.models.runtime == {"kv_unified": "off", "parallel": 3, "ctx": 32}
    assert setup.system.options == {"draft": "off", "top_p": 0.5}
    bad: dict[str, Any] = {"batch_size": "auto", "add_bos_token": "maybe", "max_gen_toks": 0}
    for name, value in bad.items():
        with pytest.raises(UsageError, match=f"{name} = {value!r} is not allowed"):
            EftlocalLM("atlas", **{name: value})
    from lm_eval.api.registry import model_registry

    assert {"eftlocal", "local-completions", "hf"} <= set(model_registry.keys())


def test_questions_of_atlas() -> None:
    """Four different answers, one of them right; the same ones every time."""
    rows = atlas_choices()
    assert rows == atlas_choices()
    for row in rows:
        assert len(set(row["choices"])) == 4 and row["label"] in range(4)
    labels = [row["label"] for row in rows]
    assert all(labels.count(label) > 40 for label in range(4))


def test_in_process_and_over_http_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every log-likelihood of `local-completions` against `eftlocal serve`, within 1e-4."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    write_tasks(tmp_path, COUNT)
    runtime = {**ATLAS.runtime, "kv_unified": "off"}
    with serve(replace(ATLAS, runtime=runtime)) as server:
        settings = f"model=atlas,base_url={server.url}{COMPLETIONS},tokenizer_backend=auto"
        command = ["--model", "local-completions", "--model_args", settings]
        remote = run_lm_eval(tmp_path, "atlas_choice", command)
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    arguments = {"entry": "atlas", "batch_size": 2, "threads": 1}
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    found = simple_evaluate(
        "eftlocal", arguments, tasks=["atlas_choice"], task_manager=manager, bootstrap_iters=0
    )
    samples = found["samples"]["atlas_choice"]
    assert len(samples) == len(remote) == COUNT
    worst = 0.0
    for one, other in zip(samples, remote, strict=True):
        pairs = zip(one["filtered_resps"], other["filtered_resps"], strict=True)
        for (logprob, greedy), (over_http, is_greedy) in pairs:
            worst = max(worst, abs(logprob - float(over_http)))
            assert greedy == (str(is_greedy) == "True")
    print(f"in process against HTTP: largest difference {worst:.2e}")
    assert worst <= 1e-4
