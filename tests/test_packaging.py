"""A wheel, an sdist and an editable install all find models.toml and the atlas files.

Each is installed into a virtual environment of its own, which borrows the dependencies of the
environment that runs the tests; nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
ATLAS = ("large.gguf", "small-chat.gguf", "small.gguf")
MOST_BYTES = 16_000_000
PAGE = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "eftlocal/server/page").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
)

REPORT = """
import json, eftlocal
from eftlocal.registry import load_registry
entry = load_registry().find("atlas")
expert = entry.experts[0]
files = [source.path for source in (entry.base, expert.tuned, expert.reference)]
magic = [file.open("rb").read(4).decode() for file in files]
print(json.dumps({"package": eftlocal.__file__, "files": list(map(str, files)), "magic": magic}))
"""


def run(*command: str | Path, folder: Path, home: Path | None = None) -> str:
    """Run a program in a folder, without the settings of this process, and return its output."""
    unwanted = ("EFTLOCAL_", "PIP_", "PYTHON", "XDG_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}
    environment |= {"HOME": str(home or folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wheel and an sdist of this source tree, by kind."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, folder=ROOT, home=folder)
    wheel, sdist = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": next(wheel), "sdist": next(sdist)}


def environment_with(target: str | Path, folder: Path, *options: str) -> Path:
    """Install something into a new virtual environment; return the folder of its programs."""
    new = folder / "venv"
    venv.create(new, symlinks=os.name != "nt")
    variables = {"base": str(new), "platbase": str(new)}
    # A plain path, below the environment's own: .pth files there are not read, so that a
    # development install of eftlocal cannot stand in for the one under test.
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    site_packages = Path(sysconfig.get_path("purelib", "venv", variables))
    (site_packages / "zz_borrowed.pth").write_text("\n".join(borrowed))
    programs = Path(sysconfig.get_path("scripts", "venv", variables))
    python = programs / Path(sys.executable).name
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    offline = ("--no-deps", "--no-index", "--no-build-isolation")
    run(*pip, *offline, *options, target, folder=folder)
    return programs


def check(programs: Path, folder: Path) -> dict[str, Any]:
    """Run what was installed from another folder: registry, files, command."""
    python = programs / Path(sys.executable).name
    report: dict[str, Any] = json.loads(run(python, "-c", REPORT, folder=folder))
    assert [Path(file).name for file in report["files"]] == list(ATLAS)
    assert report["magic"] == ["GGUF"] * 3
    assert run(programs / "eftlocal", "--version", folder=folder) == "eftlocal 0.1.0\n"
    assert "complete" in run(python, "-m", "eftlocal", "--help", folder=folder)
    return report


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_an_installed_distribution_is_complete(
    kind: str, built: dict[str, Path], tmp_path: Path
) -> None:
    """A wheel, and a wheel that pip builds from the sdist, bring their files along."""
    programs = environment_with(built[kind], tmp_path)
    report = check(programs, tmp_path)
    package = Path(report["package"]).parent
    assert package.is_relative_to(tmp_path)
    assert (package / "models.toml").read_text() == (ROOT / "models.toml").read_text()
    assert all(Path(file).is_relative_to(package) for file in report["files"])


def test_an_editable_install_uses_the_source_tree(tmp_path: Path) -> None:
    """An editable install reads package, models.toml and models where they are edited."""
    programs = environment_with(ROOT, tmp_path, "--editable")
    report = check(programs, tmp_path)
    assert Path(report["package"]) == ROOT / "eftlocal" / "__init__.py"
    assert all(
        Path(file).is_relative_to(ROOT / "eftlocal" / "families") for file in report["files"]
    )


def test_a_wheel_holds_the_package_and_nothing_else(built: dict[str, Path]) -> None:
    """Tests and scripts stay out; the licence, the type marker and the page are in."""
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = wheel.namelist()
        size = sum(item.file_size for item in wheel.infolist())
    assert {name.split("/")[0] for name in names} == {"eftlocal", "eftlocal-0.1.0.dist-info"}
    for wanted in ("models.toml", "py.typed", *(f"families/atlas/{file}" for file in ATLAS)):
        assert f"eftlocal/{wanted}" in names
    assert "eftlocal/server/page/index.html" in PAGE and set(PAGE) <= set(names)
    assert "eftlocal-0.1.0.dist-info/licenses/LICENSE" in names
    assert not [name for name in names if "__pycache__" in name]
    assert size < MOST_BYTES


def test_an_sdist_holds_the_sources(built: dict[str, Path]) -> None:
    """What is needed to build, test and check is there; what lies about in the folder is not."""
    with tarfile.open(built["sdist"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = {"LICENSE", "README.md", "models.toml", "pyproject.toml", "scripts/check"}
    assert wanted < names
    assert "tests/test_packaging.py" in names and set(PAGE) <= names
    allowed = {".ci", ".gitignore", "PKG-INFO", "eftlocal", "scripts", "tests", *wanted}
    assert {name.split("/")[0] for name in names} <= allowed
