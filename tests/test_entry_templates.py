"""Templates per role: which prompt each context of an entry reads."""

from __future__ import annotations

from pathlib import Path

import pytest

import eftlocal
from eftlocal.prompts import plain_transcript
from eftlocal.registry import PACKAGE, load_registry

from .conftest import Trio

LLAMA2 = PACKAGE / "families" / "templates" / "llama2.jinja"
MESSAGES = [{"role": "user", "content": "Hello you"}]
ENDS = {2: -1000.0, 262: -1000.0}


def write_entry(folder: Path, files: Trio, lines: str) -> Path:
    """A models.toml with three files under the name x."""
    roles = [f'{role} = {{ path = "{path}" }}' for role, path in files._asdict().items()]
    file = folder / "models.toml"
    file.write_text("\n".join(["[models.x]", *roles, "threads = 1", lines]) + "\n")
    return file


def held(model: eftlocal.FusedModel, n_tokens: int) -> list[list[int]]:
    """What the contexts hold before a completion of so many tokens."""
    contexts = model.engine.ensemble.contexts
    return [context.tokens(0)[: 1 - n_tokens or None] for context in contexts]


STYLES = {
    "shared": ("", ("template", "template", "template")),
    "base plain": ('templates = { base = "plain" }', ("plain", "template", "template")),
    "all plain": ('templates = { tuned = "plain" }', ("plain", "plain", "plain")),
    "a file for all": ("templates = { tuned = FILE }", ("file", "file", "file")),
    "a file for the tuned": (
        'prompt = "tuned-only"\ntemplates = { tuned = FILE }',
        ("plain", "file", "plain"),
    ),
    "every role its own": (
        'templates = { base = "plain", reference = FILE }',
        ("plain", "template", "file"),
    ),
}


@pytest.mark.parametrize(("lines", "styles"), STYLES.values(), ids=STYLES.keys())
def test_every_role_reads_its_own_prompt(
    lines: str, styles: tuple[str, ...], trio: Trio, tmp_path: Path
) -> None:
    """The tokens in each cache are those of the style that the entry states for its role."""
    path = tmp_path / "own.jinja"
    path.write_text(LLAMA2.read_text(encoding="utf-8"), encoding="utf-8")
    models = write_entry(tmp_path, trio, lines.replace("FILE", '{ path = "own.jinja" }'))
    with (
        eftlocal.load("x", models=models, temperature=0, max_tokens=3) as model,
        eftlocal.load(base=trio.base, tuned=trio.tuned, reference=trio.reference) as usual,
    ):
        wanted = {
            "plain": model.tokenize(plain_transcript(MESSAGES), special=True),
            "file": model.tokenize("[INST] Hello you [/INST]", special=True),
            "template": list(usual.chat(MESSAGES, max_tokens=1).prompt_tokens),
        }
        assert len(set(map(tuple, wanted.values()))) == 3
        done = model.chat(MESSAGES, logit_bias=ENDS)
        assert held(model, len(done.tokens)) == [wanted[style] for style in styles]
        entry = load_registry(models).find("x")
        assert entry.neutral == ("control" if styles[0] == "plain" else "none")


def test_a_template_file_replaces_one_that_is_missing(trio: Trio, tmp_path: Path) -> None:
    """Older files have no template of their own; the next turn goes on from what is cached."""
    without = trio._replace(tuned=trio.reference)
    models = write_entry(tmp_path, without, "")
    with (
        eftlocal.load("x", models=models) as model,
        pytest.raises(eftlocal.PromptError, match=r"has no chat template.*`templates`"),
    ):
        model.chat(MESSAGES)
    lines = f'templates = {{ tuned = {{ path = "{LLAMA2}" }} }}'
    models = write_entry(tmp_path, without, lines)
    with eftlocal.load("x", models=models, temperature=0, max_tokens=3) as model:
        first = model.chat(MESSAGES, logit_bias=ENDS)
        said = [{"role": "assistant", "content": first.text}, {"role": "user", "content": "So?"}]
        second = model.chat([*MESSAGES, *said], logit_bias=ENDS)
        # Between the turns the template may write other blanks than the model did.
        assert second.timings.cached_tokens >= len(first.prompt_tokens)


def test_a_template_file_that_is_not_there_is_one_line(trio: Trio, tmp_path: Path) -> None:
    """It is missed before any model is loaded."""
    models = write_entry(tmp_path, trio, 'templates = { tuned = { path = "lost.jinja" } }')
    with pytest.raises(eftlocal.RegistryError, match=r"x: there is no chat template .*lost\.jinja"):
        eftlocal.load("x", models=models)
