"""The shipped models.toml: complete, consistent, and honest about what is known."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from eftlocal.errors import PromptError
from eftlocal.registry import PACKAGE, Entry, Source, load_registry
from eftlocal.templates import ChatTemplate

ENTRIES = load_registry().entries
HUB = [entry for name, entry in ENTRIES.items() if not name.startswith("atlas")]
BY_NAME = pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())
OF_THE_HUB = pytest.mark.parametrize("entry", HUB, ids=[entry.name for entry in HUB])


def own_sources(entry: Entry) -> list[Source]:
    """The files of an entry, each once."""
    return list(dict.fromkeys(source for _, source in entry.sources()))


def quant(source: Source) -> str:
    """The quantization in a file's name."""
    found = re.search(r"[-.]((?:I?Q\d\w*)|f16)\.gguf$", source.file or "", re.IGNORECASE)
    assert found is not None, source
    return found[1].upper()


def test_all_families_are_there() -> None:
    """Up- and down-scaling, experts, an adapter, the paper's own families."""
    assert set(ENTRIES) == {
        "atlas", "atlas-down", "atlas-frontier", "atlas-experts", "smollm2-1.7b", "qwen2.5-7b",
        "qwen2.5-14b", "qwen2.5-14b-iq3", "qwen3-8b", "qwen3-14b", "llama3.1-8b", "olmo2-7b",
        "qwen2.5-7b-experts", "qwen2.5-7b-refusal", "llama2-7b-lora", "llama2-13b", "llama2-70b",
        "falcon-40b", "qwen2.5-1.5b-down",
    }  # fmt: skip
    assert next(iter(ENTRIES)) == "atlas"


@BY_NAME
def test_every_entry_says_what_users_ask(entry: Entry) -> None:
    """One line each: what it is, what it suits, its licence, the reason of its prompt style."""
    for text in (entry.description, entry.hardware, entry.licence, entry.why):
        assert text and len(text) < 110
    style = {"shared": "template", "tuned-only": "plain"}[entry.prompt]
    if "tuned" not in entry.templates:
        assert entry.style("base") == entry.style("reference") == style


@OF_THE_HUB
def test_files_of_the_hub_state_their_evidence(entry: Entry) -> None:
    """No revision that nobody has seen; a hash only where it is known."""
    for source in own_sources(entry):
        assert source.hf and source.file and source.evidence in ("seen", "inferred")
        assert (source.path, source.quant, source.revision) == (None, None, None)
    assert entry.runtime["ctx"] == (2048 if entry.name.startswith(("llama2", "falcon")) else 4096)


@OF_THE_HUB
def test_tuned_and_reference_have_one_quantization(entry: Entry) -> None:
    """Their errors then partly cancel; an adapter has none of its own."""
    for expert in entry.experts:
        if expert.tuned.scale is None:
            assert quant(expert.tuned) == quant(expert.reference)


@OF_THE_HUB
def test_memory_is_more_than_the_files(entry: Entry) -> None:
    """By the KV caches, which at these lengths are a tenth of a gigabyte to a third of all."""
    sizes = [source.size for source in own_sources(entry)]
    known = sum(size or 0 for size in sizes)
    if entry.memory is None:
        assert None in sizes
    else:
        assert known < entry.memory < 1.7 * known


def test_one_name_has_one_size_and_one_evidence() -> None:
    """What several entries say of one file is the same."""
    said: dict[str, set[tuple[object, ...]]] = {}
    for entry in HUB:
        for source in own_sources(entry):
            facts = (source.evidence, source.size, source.sha256)
            said.setdefault(str(source), set()).add(facts)
    assert [name for name, facts in said.items() if len(facts) > 1] == []
    assert "ebb25a17e79b" in str(said["ggml-org/Qwen3-0.6B-Base-GGUF/Qwen3-0.6B-Base-Q8_0.gguf"])


def test_the_readme_lists_every_family() -> None:
    """With its memory, hardware, prompt style and how many names were seen."""
    text = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    for entry in HUB:
        (row,) = re.findall(rf"^\| `{re.escape(entry.name)}` \|.*\|$", text, re.MULTILINE)
        sources = own_sources(entry)
        seen = sum(source.evidence == "seen" for source in sources)
        memory = f"{entry.memory / 1e9:.1f} GB" if entry.memory else "?"
        wanted = [memory, entry.hardware, entry.prompt, f"{seen} of {len(sources)}"]
        assert [cell.strip() for cell in row.split("|")[3:-1]] == wanted


def test_the_file_itself_has_no_second_table_of_one_name() -> None:
    """As tomllib reads it, it holds as many entries as it has lines that open one."""
    text = (PACKAGE.parent / "models.toml").read_text(encoding="utf-8")
    opened = re.findall(r'^\[models\.("[^"]+"|[\w-]+)\]$', text, re.MULTILINE)
    assert [name.strip('"') for name in opened] == list(tomllib.loads(text)["models"])


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": " Hello. "},
    {"role": "user", "content": "Who?"},
]
RENDERED = {
    # https://github.com/meta-llama/llama/blob/main/llama/generation.py, chat_completion
    "llama2": (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello. </s><s>[INST] Who? [/INST]"
    ),
    # https://github.com/tatsu-lab/stanford_alpaca, the prompt without input
    "alpaca": (
        "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello.\n\n"
        "### Instruction:\nWho?\n\n### Response:\n"
    ),
}


@pytest.mark.parametrize("name", RENDERED)
def test_the_shipped_templates_render_as_published(name: str) -> None:
    """With and without a system message; used by entries whose files have no template."""
    file = PACKAGE / "families" / "templates" / f"{name}.jinja"
    template = ChatTemplate(file.read_text(encoding="utf-8"), "<s>", "</s>")
    assert template.render(CHAT) == RENDERED[name]
    plain = (
        RENDERED[name].replace("<<SYS>>\nBe brief.\n<</SYS>>\n\n", "").replace("Be brief.\n\n", "")
    )
    assert template.render(CHAT[1:]) == plain
    with pytest.raises(PromptError, match="there are no tools in this template"):
        template.render([*CHAT, {"role": "tool", "content": "12"}])
    users = [entry for entry in HUB if file in entry.templates.values()]
    assert users and all(entry.style("base") == entry.style("tuned") == file for entry in users)
    assert {path.stem for path in Path(file.parent).iterdir()} == set(RENDERED)
