"""models.toml: what is understood, where it is looked for, and how mistakes are reported."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from eftlocal.errors import RegistryError
from eftlocal.options import GenerationOptions, RuntimeOptions
from eftlocal.registry import PACKAGE, Entry, Expert, Source, load_registry, read_entries

SHIPPED = list(tomllib.loads((PACKAGE.parent / "models.toml").read_text())["models"])
TRIO = """
base = { path = "base.gguf" }
tuned = { path = "/models/tuned.gguf" }
reference = { path = "../reference.gguf" }
"""


def write(file: Path, text: str) -> Path:
    """Write a models.toml, with its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def read(tmp_path: Path, text: str) -> Entry:
    """The entry `x` of a models.toml."""
    return read_entries(write(tmp_path / "models.toml", f"[models.x]\n{text}"))["x"]


def test_atlas_is_shipped_greedy_and_complete() -> None:
    """The shipped entry takes its files from the package and answers the same way twice."""
    entry = load_registry().find("atlas")
    expert = entry.experts[0]
    files = [entry.base.path, expert.tuned.path, expert.reference.path]
    assert files == [
        PACKAGE / "families" / "atlas" / name
        for name in ("large.gguf", "small-chat.gguf", "small.gguf")
    ]
    assert (entry.prompt, entry.options["temperature"]) == ("shared", 0)
    assert entry.description


def test_paths_count_from_the_file_that_names_them(tmp_path: Path) -> None:
    """Relative paths are relative to models.toml, absolute ones are kept, ~ is home."""
    entry = read(tmp_path, TRIO.replace("/models/tuned", "~/tuned"))
    tuned = Source(path=Path.home() / "tuned.gguf")
    assert entry == Entry(
        "x",
        base=Source(path=tmp_path / "base.gguf"),
        experts=(Expert("tuned", tuned, Source(path=tmp_path / "../reference.gguf")),),
    )


def test_a_relative_file_name_still_gives_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries stay right when the working directory changes later."""
    write(tmp_path / "models.toml", f"[models.x]\n{TRIO}")
    monkeypatch.chdir(tmp_path)
    assert read_entries(Path("models.toml"))["x"].base.path == tmp_path / "base.gguf"


def test_every_field_of_an_entry(tmp_path: Path) -> None:
    """Runtime options, generation options, the sampling table and hub files find their places."""
    digest = "0123456789abcdef" * 4
    entry = read(
        tmp_path,
        f"""
        description = "two experts"
        prompt = "tuned-only"
        ctx = 4096
        gpu_layers = "all"
        flash_attention = "off"
        alpha = 0.5
        stop = ["User:"]
        base = {{ hf = "user/A-GGUF", file = "a.Q4.gguf", evidence = "seen", sha256 = "{digest}" }}
        experts = [
            {{ name = "math", tuned = {{ path = "m" }}, reference = {{ path = "r" }} }},
            {{ name = "code", tuned = {{ path = "c" }}, reference = {{ hf = "u/r", file = "f" }} }},
        ]
        [models.x.sampling]
        temperature = 0.7
        logit_bias = {{ 42 = -1.5 }}
        """,
    )
    assert entry.base == Source(hf="user/A-GGUF", file="a.Q4.gguf", evidence="seen", sha256=digest)
    assert str(entry.base) == "user/A-GGUF/a.Q4.gguf"
    assert [expert.name for expert in entry.experts] == ["math", "code"]
    assert entry.experts[1].reference == Source(hf="u/r", file="f")
    assert (entry.description, entry.prompt) == ("two experts", "tuned-only")
    runtime = RuntimeOptions().updated(entry.runtime)
    assert runtime == RuntimeOptions(ctx=4096, gpu_layers="all", flash_attention="off")
    assert GenerationOptions().updated(entry.options) == GenerationOptions(
        alpha=0.5, stop=("User:",), temperature=0.7, logit_bias={42: -1.5}
    )


TWO = """
base = { path = "b" }
experts = [
    { name = "math", tuned = { path = "m" }, reference = { path = "r" } },
    { name = "code", tuned = { path = "c" }, reference = { path = "r" } },
]
"""


def test_adapters_have_their_own_form(tmp_path: Path) -> None:
    """A tuned model may be a LoRA adapter: a path, or any source, and a scale."""
    forms = {
        '{ lora = "a.gguf" }': Source(path=tmp_path / "a.gguf", scale=1.0),
        '{ lora = { path = "a.gguf" }, scale = 0.5 }': Source(path=tmp_path / "a.gguf", scale=0.5),
        '{ lora = { hf = "u/r", file = "f", evidence = "seen" }, scale = -2 }': Source(
            hf="u/r", file="f", evidence="seen", scale=-2.0
        ),
    }
    for form, source in forms.items():
        entry = read(tmp_path, TRIO.replace('{ path = "/models/tuned.gguf" }', form))
        assert entry.experts[0].tuned == source
        assert isinstance(entry.experts[0].tuned.scale, float)
        first, second = read(tmp_path, TWO.replace('{ path = "c" }', form)).experts
        assert (first.tuned.scale, second.tuned) == (None, source)


def test_weights_and_lambda_are_options(tmp_path: Path) -> None:
    """Both may stand in the entry or in its sampling table, under the names outside Python."""
    weighted = read(tmp_path, f"{TWO}\nweight = {{ code = 0.5 }}\nalpha = 'grid'")
    assert GenerationOptions().updated(weighted.options) == GenerationOptions(
        weight={"code": 0.5}, alpha="grid"
    )
    mixed = read(tmp_path, f"{TWO}\n[models.x.sampling]\nlambda = 0.3")
    assert GenerationOptions().updated(mixed.options).lambda_ == 0.3


@pytest.mark.parametrize(
    ("lines", "neutral"),
    [
        ("", "none"),
        ('prompt = "shared"', "none"),
        ('prompt = "tuned-only"', "control"),
        ('prompt = "tuned-only"\nneutral = "none"', "none"),
        ('neutral = "control"', "control"),
    ],
)
def test_neutral_follows_the_prompt(lines: str, neutral: str, tmp_path: Path) -> None:
    """A base without the template says nothing of its markers, unless the entry wants it."""
    assert read(tmp_path, f"{TRIO}\n{lines}").neutral == neutral


def lora(form: str) -> str:
    """An entry with an adapter of that form."""
    return f"[models.x]\n{TRIO}".replace('{ path = "/models/tuned.gguf" }', form)


MISTAKES = {
    "no TOML": ("x = = 1", "not valid TOML"),
    "no models": ("", "models: missing"),
    "other tables": ("[model.x]", "models: missing"),
    "key beside models": ("y = 1\n[models]", "y: unknown key; allowed: models"),
    "an entry that is no table": ("models.x = 1", "models.x: 1 is not allowed"),
    "no base": ("[models.x]", "models.x.base: missing; it is { path ="),
    "no reference": (
        '[models.x]\nbase = { path = "b" }\ntuned = { path = "t" }',
        "models.x.reference: missing",
    ),
    "a source that is a text": ('[models.x]\nbase = "b.gguf"', "models.x.base: 'b.gguf' is not"),
    "an empty path": ('[models.x]\nbase = { path = "" }', "models.x.base.path: '' is not allowed"),
    "path and hf": (
        '[models.x]\nbase = { path = "b", hf = "u/r" }',
        "models.x.base.hf: unknown key; allowed: path",
    ),
    "a source of nothing": ("[models.x]\nbase = {}", "models.x.base: path, or hf and file missing"),
    "hf without file": ('[models.x]\nbase = { hf = "u/r" }', "models.x.base: file missing"),
    "hf without user": ('[models.x]\nbase = { hf = "r", file = "f" }', "use user/repository"),
    "other evidence": (
        '[models.x]\nbase = { hf = "u/r", file = "f", evidence = "heard" }',
        "models.x.base.evidence: 'heard' is not allowed; use seen or inferred",
    ),
    "a short hash": (
        '[models.x]\nbase = { hf = "u/r", file = "f", sha256 = "12" }',
        "models.x.base.sha256: '12' is not allowed; use 64",
    ),
    "misspelt key": (
        f"[models.x]\n{TRIO}\ncxt = 1",
        "models.x.cxt: unknown key; did you mean ctx?",
    ),
    "prompt": (
        f'[models.x]\n{TRIO}\nprompt = "all"',
        "prompt: 'all' is not allowed; use shared or",
    ),
    "description": (f"[models.x]\n{TRIO}\ndescription = 3", "models.x.description: 3 is not"),
    "runtime value": (f"[models.x]\n{TRIO}\nctx = -1", "models.x: ctx = -1 is not allowed"),
    "runtime type": (f'[models.x]\n{TRIO}\nctx = "big"', "models.x: ctx = 'big' is not allowed"),
    "generation value": (f"[models.x]\n{TRIO}\nalpha = true", "models.x: alpha = True is not"),
    "sampling no table": (f"[models.x]\n{TRIO}\nsampling = 1", "models.x.sampling: 1 is not"),
    "sampling value": (
        f"[models.x]\n{TRIO}\n[models.x.sampling]\ntop_p = 7",
        "models.x.sampling: top_p = 7 is not allowed",
    ),
    "sampling key": (
        f"[models.x]\n{TRIO}\n[models.x.sampling]\nctx = 7",
        "models.x.sampling.ctx: unknown key",
    ),
    "an option twice": (
        f"[models.x]\n{TRIO}\nalpha = 1\n[models.x.sampling]\nalpha = 1",
        "models.x.sampling.alpha: also stands in",
    ),
    "logit bias": (
        f"[models.x]\n{TRIO}\nlogit_bias = {{ hello = 1 }}",
        "models.x: logit_bias = {'hello': 1} is not allowed",
    ),
    "no experts": (
        '[models.x]\nbase = { path = "b" }\nexperts = []',
        "models.x.experts: [] is not allowed; use a list",
    ),
    "experts and tuned": (f"[models.x]\n{TRIO}\nexperts = [{{}}]", "models.x.tuned: stands beside"),
    "nameless expert": (
        '[models.x]\nbase = { path = "b" }\nexperts = [{}]',
        "models.x.experts[0].name: missing",
    ),
    "expert without tuned": (
        '[models.x]\nbase = { path = "b" }\nexperts = [{ name = "n" }]',
        "models.x.experts[0].tuned: missing",
    ),
    "key in an expert": (
        '[models.x]\nbase = { path = "b" }\nexperts = [{ name = "n", tuned = { path = "t" }, '
        'reference = { path = "r" }, weight = 1 }]',
        "models.x.experts[0].weight: unknown key",
    ),
    "neutral": (
        f'[models.x]\n{TRIO}\nneutral = "all"',
        "neutral: 'all' is not allowed; use control",
    ),
    "scale without lora": (lora("{ scale = 1 }"), "models.x.tuned.lora: missing; use"),
    "scale": (
        lora('{ lora = "a", scale = "1" }'),
        "models.x.tuned.scale: '1' is not allowed; use a",
    ),
    "scale nan": (lora('{ lora = "a", scale = nan }'), "models.x.tuned.scale: nan is not allowed"),
    "scale truth": (lora('{ lora = "a", scale = true }'), "models.x.tuned.scale: True is not"),
    "empty lora": (lora('{ lora = "" }'), "models.x.tuned.lora: '' is not allowed; use"),
    "lora list": (lora("{ lora = [] }"), "models.x.tuned.lora: [] is not allowed; use"),
    "lora without file": (lora('{ lora = { hf = "u/r" } }'), "models.x.tuned.lora: file missing"),
    "lora and path": (
        lora('{ lora = "a", path = "b" }'),
        "models.x.tuned.path: unknown key; allowed: lora, scale",
    ),
    "lora as reference": (
        f"[models.x]\n{TRIO}".replace('path = "../reference.gguf"', 'lora = "a"'),
        "models.x.reference.lora: unknown key; allowed: path",
    ),
    "expert with a blank": (
        '[models.x]\nbase = { path = "b" }\nexperts = [{ name = "my math" }]',
        "models.x.experts[0].name: 'my math' is not allowed; use a name without blanks",
    ),
    "unknown weight": (
        f"[models.x]\n{TWO}\nweight = {{ maths = 1 }}",
        "models.x: weight = maths=1 is not allowed; the experts are: math, code",
    ),
    "weight no table": (f"[models.x]\n{TWO}\nweight = 1", "models.x: weight = 1 is not allowed"),
    "lambda of one": (
        f"[models.x]\n{TRIO}\n[models.x.sampling]\nlambda = 0.5",
        "models.x: lambda = 0.5 is not allowed; use it with two experts, not 1 (tuned)",
    ),
    "weight and lambda": (
        f"[models.x]\n{TWO}\nlambda = 0.5\n[models.x.sampling]\nweight = {{ math = 1 }}",
        "models.x: lambda = 0.5 is not allowed; use either weight or lambda",
    ),
    "lambda_": (f"[models.x]\n{TWO}\nlambda_ = 0.5", "lambda_: unknown key; did you mean lambda?"),
    "one name twice": (
        '[models.x]\nbase = { path = "b" }\nexperts = ['
        '{ name = "n", tuned = { path = "t" }, reference = { path = "r" } }, { name = "n" }]',
        "models.x.experts[1].name: 'n' is the name",
    ),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_names_file_key_and_remedy(text: str, message: str, tmp_path: Path) -> None:
    """Every mistake is one line that starts with the file."""
    file = write(tmp_path / "models.toml", text)
    with pytest.raises(RegistryError) as caught:
        read_entries(file)
    line = str(caught.value)
    assert line.startswith(f"{file}: ")
    assert message in line
    assert "\n" not in line


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"\x00"], ids=["missing", "utf-16", "zero"])
def test_an_unreadable_file_is_reported(content: bytes | None, tmp_path: Path) -> None:
    """A file that is not there, or no text, is one clear error."""
    file = tmp_path / "models.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RegistryError, match=r"models\.toml: (cannot be read: |not valid TOML: )"):
        load_registry(file)


def test_where_the_users_file_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The argument wins over EFTLOCAL_MODELS, and that over the configuration folder."""
    config, named, given = (tmp_path / name for name in ("config", "named.toml", "given.toml"))
    assert list(load_registry().entries) == SHIPPED
    write(config / "eftlocal" / "models.toml", f"[models.from-config]\n{TRIO}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    assert list(load_registry().entries) == ["from-config", *SHIPPED]
    write(named, f"[models.from-environment]\n{TRIO}")
    monkeypatch.setenv("EFTLOCAL_MODELS", str(named))
    assert list(load_registry().entries) == ["from-environment", *SHIPPED]
    write(given, f"[models.from-argument]\n{TRIO}")
    assert list(load_registry(given).entries) == ["from-argument", *SHIPPED]
    monkeypatch.setenv("EFTLOCAL_MODELS", str(tmp_path / "missing.toml"))
    with pytest.raises(RegistryError, match=r"missing\.toml: cannot be read"):
        load_registry()


def test_the_home_folder_is_the_last_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without XDG_CONFIG_HOME the file is ~/.config/eftlocal/models.toml."""
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write(tmp_path / ".config" / "eftlocal" / "models.toml", f"[models.mine]\n{TRIO}")
    assert "mine" in load_registry().entries


def test_the_users_entry_replaces_a_shipped_one(tmp_path: Path) -> None:
    """A user may give `atlas` another meaning."""
    registry = load_registry(write(tmp_path / "models.toml", f"[models.atlas]\n{TRIO}"))
    assert registry.find("atlas").base.path == tmp_path / "base.gguf"
    assert list(registry.entries) == SHIPPED


def test_an_unknown_entry_names_those_that_look_alike() -> None:
    """A typing error is met with the right name."""
    with pytest.raises(RegistryError, match=r"no model entry is called 'atls'; did you mean atlas"):
        load_registry().find("atls")
