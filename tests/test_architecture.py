"""The house rules of the source: who may import whom, and how long things may be."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "eftlocal"

# A module imports only from layers above its own in this list (packages also from themselves).
# llama stands low, as an edge: ensemble and engine know only the `Context` protocol.
LAYERS = (
    ("errors",),
    ("options", "tables", "textfiles"),
    ("gguf",),
    ("memory",),
    ("distributions", "experts"),
    ("masking",),
    ("alpha", "sampling", "diagnostics"),
    ("upscaling", "acceptance"),
    ("fusion",),
    ("drafting",),
    ("context", "generation"),
    ("ensemble",),
    ("rows",),
    ("prefill", "speculation"),
    ("engine",),
    ("registry",),
    ("reasoning",),
    ("toolcalls",),
    ("llama", "threads", "text", "templates", "prompts", "hub", "constraints"),
    ("compatibility",),
    ("stream", "placement", "rendering"),
    ("model",),
    ("loading", "batch"),
    ("__init__",),
    ("explain", "bench", "doctor"),
    ("server", "evaluate"),
    ("cli",),
    ("__main__",),
)
HEART = (
    "distributions", "alpha", "upscaling", "fusion", "sampling", "acceptance", "diagnostics",
    "drafting",
)  # fmt: skip
OWNERS: dict[str, str | tuple[str, ...]] = {
    # The benchmark compares with the class that people use.
    "llama_cpp": ("llama/library.py", "bench/peers/llama_objects.py"),
    "gguf": "bench/",
    "torch": "bench/peers/transformers_loop.py",
    "transformers": "bench/peers/transformers_loop.py",
    "huggingface_hub": "hub/",
    "jinja2": "templates.py",
    "datasets": "evaluate/tasks/local.py",
    "lm_eval": "evaluate/tasks/",
    "matplotlib": "evaluate/page/plots.py",
    "openai": "evaluate/judge/",
    "click": "cli/",
    "prompt_toolkit": "cli/",
    "tqdm": "cli/",
    "wcwidth": "cli/",
    "llguidance": "constraints/",
    "anyio": "server/",
    "fastapi": "server/",
    "fastapi_offline": "server/docs.py",
    "h11": "server/",
    "prometheus_client": "server/",
    "pydantic": "server/",
    "pydantic_core": "server/",
    "starlette": "server/",
    "uvicorn": "server/",
}
"""Package -> the module, or folder, that imports it; several where the reason is given."""

MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [
    file for part in ("eftlocal", "scripts", "tests") for file in (ROOT / part).rglob("*.py")
]


def name_of(path: Path) -> str:
    """A readable id for a file."""
    return str(path.relative_to(ROOT))


def part_of(path: Path) -> str:
    """The module or folder directly in the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer_of(part: str) -> int:
    """The place of a module in the list of layers."""
    for place, layer in enumerate(LAYERS):
        if part in layer:
            return place
    raise AssertionError(f"eftlocal/{part} has no layer: give it one in {__file__}")


def imported(path: Path) -> Iterator[str]:
    """Absolute names of everything that a file imports anywhere, `package.module` or longer."""
    package = ("eftlocal", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join((*above, *filter(None, [node.module])))
            yield from (f"{start}.{alias.name}" for alias in node.names)


def own_part(name: str) -> str:
    """The part of the package that an imported name lies in; `__init__` for its own names."""
    part = name.split(".")[1]
    is_module = (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").exists()
    return part if is_module else "__init__"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_downwards(path: Path) -> None:
    """A module imports only modules of lower layers; a folder also its own files."""
    part = part_of(path)
    for name in imported(path):
        if not name.startswith("eftlocal."):
            continue
        other = own_part(name)
        lower = layer_of(other) < layer_of(part) or (part == other and path.parent != PACKAGE)
        assert lower, f"{name_of(path)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_dependency_has_one_owner(path: Path) -> None:
    """jinja2 is imported by templates.py alone, and so on; NumPy is everyone's."""
    for name in imported(path):
        package = name.split(".")[0]
        if package in sys.stdlib_module_names or package in ("eftlocal", "numpy"):
            continue
        owner = OWNERS.get(package, "nobody")
        assert path.relative_to(PACKAGE).as_posix().startswith(owner), f"{package} is {owner}'s"


@pytest.mark.parametrize("part", [part for part in HEART if (PACKAGE / f"{part}.py").exists()])
def test_the_heart_is_pure_numpy(part: str) -> None:
    """Fusion and sampling know NumPy, the standard library, errors and options; no files."""
    allowed = {*HEART, "errors", "options"}
    for name in imported(PACKAGE / f"{part}.py"):
        package = name.split(".")[0]
        if package == "eftlocal":
            assert own_part(name) in allowed, name
        else:
            assert package == "numpy" or package in sys.stdlib_module_names, name
            assert package not in ("os", "io", "pathlib", "subprocess", "socket"), name


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_and_functions_stay_short(path: Path) -> None:
    """No file has more than 350 lines, no function more than 60."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def test_the_rules_find_what_they_look_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports inside functions, relative ones and those of names are all seen."""
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "cli").mkdir()
    (tmp_path / "engine.py").touch()
    file = tmp_path / "cli" / "chat.py"
    file.write_text(
        "import os.path, numpy as np\nfrom .. import FusedModel, engine\n"
        "from ..engine import Engine\nfrom . import options\n"
        "def f():\n    from .options import x\n    import eftlocal.engine\n"
    )
    names = list(imported(file))
    assert names == [
        "os.path",
        "numpy",
        "eftlocal.FusedModel",
        "eftlocal.engine",
        "eftlocal.engine.Engine",
        "eftlocal.cli.options",
        "eftlocal.cli.options.x",
        "eftlocal.engine",
    ]
    assert [own_part(name) for name in names[2:6]] == ["__init__", "engine", "engine", "cli"]
