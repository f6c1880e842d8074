"""Who answers in `eftlocal eval judge`, and conversations of several turns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from eftlocal.errors import PromptError
from eftlocal.evaluate.judge.asks import all_asks
from eftlocal.evaluate.judge.dialogues import DEFAULTS, Dialogues
from eftlocal.evaluate.judge.roles import ROLES
from eftlocal.evaluate.parts import Lineup
from eftlocal.evaluate.prompt_sets import Prompt
from eftlocal.evaluate.scale import FLOOR
from eftlocal.evaluate.store import Store, file_digest
from eftlocal.evaluate.systems import FAMILY, Models, System, family, greedy
from eftlocal.evaluate.work import perform

from .adapters import write_adapter
from .conftest import Trio

PROMPTS = tuple(
    Prompt(name, (f"What is the capital of {name}?", "And what is the symbol of gold?"))
    for name in ("France", "Peru", "Japan")
)


def said(system: System, store: Store, prompts: tuple[Prompt, ...] = PROMPTS) -> list[str]:
    """What a system replies, turn by turn."""
    work = Dialogues(system, prompts, store)
    perform([work], store)
    return [one.reply or one.error for one in work.exchanges()]


def systems(
    models: Models, folder: Path, options: Mapping[str, Any], ceiling: str | None = None
) -> list[System]:
    """Who answers: the fused model, base and tuned alone, and the ceiling if there is one."""
    lineup = Lineup(models, folder, options, ("base", "tuned"), ceiling, defaults=DEFAULTS)
    return [part.system for part in (lineup.fused(), *lineup.others())]


def test_parts_alone_are_their_models(tmp_path: Path) -> None:
    """The tuned and the base alone say what a trio of this one model says."""
    store = Store(tmp_path / "store")
    models = Models("atlas", runtime={"parallel": 8, "kv_unified": "off"})
    large_chat = str(FAMILY / "large-chat.gguf")
    fused, base, tuned, ceiling = systems(models, tmp_path, {"max_tokens": 64}, large_chat)
    assert said(tuned, store) == said(System("", FLOOR.models, greedy()), store)
    large = System("", family("large", "small-chat", "small"), greedy(alpha=0.0))
    assert said(base, store) == said(large, store)
    other = System("", family("large-chat", "large-chat", "large-chat"), greedy())
    assert said(ceiling, store) == said(other, store)
    assert len({tuple(said(system, store)) for system in (fused, base, tuned)}) == 3


def test_turns_follow_replies(tmp_path: Path, atlas: Any) -> None:
    """The second turn's reply is the one to a conversation with the first one's; also resumed."""
    store = Store(tmp_path / "store")
    system = System("", family("large", "small-chat"), greedy())
    texts = said(system, store)
    work = Dialogues(system, PROMPTS, store)
    for i, prompt in enumerate(PROMPTS):
        messages = [{"role": "user", "content": prompt.turns[0]}]
        first = atlas.chat(messages, alpha=1.0, max_tokens=64, draft="off").text
        messages += [{"role": "assistant", "content": first}]
        messages += [{"role": "user", "content": prompt.turns[1]}]
        second = atlas.chat(messages, alpha=1.0, max_tokens=64, draft="off").text
        assert texts[2 * i : 2 * i + 2] == [first, second]
    shelf = next((tmp_path / "store").iterdir())
    lines = [line for line in shelf.read_text().splitlines() if line]
    shelf.write_text("\n".join(lines[:4]) + "\n" + lines[4][:20])
    assert said(system, store) == texts
    assert len(work.items) == 6


def test_a_prompt_that_does_not_fit(tmp_path: Path) -> None:
    """Has no reply, nor has what follows it; the others have theirs, and judges do not see it."""
    store = Store(tmp_path / "store")
    prompts = (Prompt("long", ("word " * 5000, "And?")), PROMPTS[0])
    work = Dialogues(System("one", family("large", "small-chat"), greedy()), prompts, store)
    perform([work], store)
    found = work.exchanges()
    assert "context" in found[0].error and found[1].error == "an earlier turn has no reply"
    assert all(one.reply and not one.error for one in found[2:])
    assert len(all_asks({"one": found}, [ROLES["helpfulness"]], pairs=True)) == 2


def test_an_adapter_alone(trio: Trio, tmp_path: Path) -> None:
    """Is its reference with the adapter: F where base and reference are the same."""
    adapter = write_adapter(tmp_path / "adapter.gguf", trio.tuned)
    files = {"base": str(trio.base), "tuned": str(adapter), "reference": str(trio.tuned)}
    models = Models(files=files, runtime={"threads": 1, "kv_unified": "off"})
    options = {"max_tokens": 8, "temperature": 0.0}
    # Only the tuned file of the trio has a chat template.
    _, _, tuned = systems(models, tmp_path, options)
    store = Store(tmp_path / "store")
    alone = {**files, "base": files["reference"]}
    same = System("", Models(files=alone, runtime=models.runtime), {**options, "draft": "off"})
    texts = said(tuned, store, PROMPTS[:1])
    assert texts == said(same, store, PROMPTS[:1])
    assert texts != said(System("", models, {**options, "alpha": 0.0}), store, PROMPTS[:1])


def test_models_that_cannot_chat(trio: Trio, tmp_path: Path) -> None:
    """Are an error of the run; no prompt is noted as one without a reply."""
    files = {role: str(trio.reference) for role in ("base", "tuned", "reference")}
    store = Store(tmp_path / "store")
    with pytest.raises(PromptError, match="has no chat template"):
        said(System("", Models(files=files, runtime={"threads": 1})), store)
    assert not list((tmp_path / "store").iterdir())


def test_limits_of_an_entry(tmp_path: Path) -> None:
    """An entry's own limit holds for all systems; what the user says goes before it."""
    models = tmp_path / "own.toml"
    files = {role: str(FAMILY / "small-chat.gguf") for role in ("base", "tuned", "reference")}
    lines = [f"{role} = {{ path = {path!r} }}" for role, path in files.items()]
    models.write_text("\n".join(["[models.own]", *lines, "max_tokens = 7", "draft = 4"]))

    def limits(**options: object) -> set[tuple[object, object]]:
        found = systems(Models("own", models=models), tmp_path, options)
        contents = [system.content["options"] for system in found]
        return {(content["max_tokens"], content["draft"]) for content in contents}

    assert limits() == {(7, 4)}
    assert limits(max_tokens=9, draft="off") == {(9, "off")}
    models.write_text("\n".join(["[models.own]", *lines]))
    assert limits() == {(1024, "off")}


def test_several_experts(tmp_path: Path) -> None:
    """Each tuned model has its expert's name; a reference that all have in common stands once."""
    files = {name: f'{{ path = "{FAMILY / name}.gguf" }}' for name in ("large", "small")}
    experts = ", ".join(
        f'{{ name = "{name}", tuned = {{ path = "{FAMILY / file}.gguf" }}, '
        f"reference = {files['small']} }}"
        for name, file in (("talk", "small-chat"), ("places", "small-countries"))
    )
    models = tmp_path / "own.toml"
    models.write_text(f"[models.own]\nbase = {files['large']}\nexperts = [{experts}]\nalpha = 2.0")
    alone = ("base", "tuned", "reference")
    lineup = Lineup(Models("own", models=models), tmp_path, {}, alone, is_chat=False)
    parts = {part.system.title: part.system.content for part in lineup.others(128)}
    assert list(parts) == [
        "base alone",
        "tuned alone (talk)",
        "tuned alone (places)",
        "reference alone",
    ]
    names = ["large", "small-chat", "small-countries", "small"]
    for content, name in zip(parts.values(), names, strict=True):
        assert set(content["files"].values()) == {file_digest(FAMILY / f"{name}.gguf")}
        assert content["runtime"]["ctx"] == 128 and content["options"]["alpha"] == 0
