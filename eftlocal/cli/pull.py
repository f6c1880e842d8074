"""`eftlocal pull`: download the files of a model entry into the shared Hugging Face cache."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from ..registry import Source, load_registry
from .downloads import Fetching, amount, fetch
from .options import SectionCommand, option
from .output import json_text
from .types import EntryName

if TYPE_CHECKING:
    from ..hub import Plan

_EPILOG = """\b
Examples:
  eftlocal pull qwen2.5-7b
  eftlocal pull --dry-run qwen2.5-7b
  eftlocal pull hf:mradermacher/Qwen2.5-7B-GGUF:IQ3_M
  eftlocal pull hf:Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf
  HF_HOME=/big/disk eftlocal pull qwen2.5-14b

A download that was stopped, in whatever way, goes on where it was. HF_HOME, HF_HUB_CACHE,
HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean to other programs.
"""
Sources = list[tuple[str, Source]]
"""Roles such as "base" or "math tuned", and where their files are."""


@dataclass(frozen=True, slots=True)
class _File:
    """One file, as `--json` prints it; sha256 is None where the hub has no such hash."""

    role: str
    repository: str
    file: str
    size: int
    sha256: str | None
    revision: str
    path: str | None


@click.command(cls=SectionCommand, epilog=_EPILOG)
@click.argument("name", type=EntryName())
@option("--models", type=click.Path(), metavar="FILE", help="Read entries from this file too.")
@option(
    "--revision",
    metavar="REV",
    envvar=None,
    help="With hf:... a branch, tag or commit instead of the main branch.",
)
@option(
    "--repair",
    is_flag=True,
    envvar=None,
    help="Compare what is there with its sha256, and fetch again what is wrong.",
)
@option("--dry-run", is_flag=True, envvar=None, help="Say what would be fetched, and stop.")
@option(
    "--retries",
    type=click.IntRange(0, 1000),
    default=Fetching().retries,
    show_default=True,
    help="Further attempts in a row that bring nothing, before a file is given up.",
)
@option("--json", "as_json", is_flag=True, envvar=None, help="Print one JSON object at the end.")
def pull(
    name: str,
    models: str | None,
    revision: str | None,
    repair: bool,
    dry_run: bool,
    retries: int,
    as_json: bool,
) -> None:
    """Download the files of the model entry NAME, or one model as hf:USER/REPO[:QUANT].

    They go into the Hugging Face cache, which other programs share. Before the first byte it is
    checked that they exist, that their vocabularies agree, and that there is room for them.
    """
    from .. import hub

    sources = find_sources(name, models, revision)
    remote = [(role, source) for role, source in sources if source.path is None]
    plan = hub.prepare([source for _, source in remote], hub.Patience(retries=retries))
    if dry_run:
        _announce(name, remote, plan, as_json)
        return
    started = time.monotonic()
    fetched = fetch(name, [source for _, source in sources], plan, Fetching(retries, repair))
    listed = _listed(remote, plan)
    if as_json:
        content = {"name": name, "size": plan.size, "fetched": fetched}
        content |= {"seconds": time.monotonic() - started, "files": [asdict(f) for f in listed]}
        click.echo(json_text(content))
        return
    if not remote:
        click.echo(f"{name}: nothing to download, its files are on this machine")
        return
    for file in listed:
        click.echo(f"{file.role:<12} {file.repository}/{file.file}  {amount(file.size)}")
    came = f"{amount(fetched)} fetched" if fetched else "nothing had to be fetched"
    use = "" if name.startswith("hf:") else f"; try: eftlocal chat -m {name}"
    click.echo(f"{name} is complete: {amount(plan.size)}, {came}{use}")


def find_sources(name: str, models: str | None, revision: str | None = None) -> Sources:
    """The files of an entry, or the one that hf:... names.

    Raises:
        RegistryError: for an unknown entry.
        UsageError: where it is neither, or an entry is given a revision.
    """
    if name.startswith("hf:"):
        return [("model", replace(Source.parse(name), revision=revision))]
    if revision is not None:
        raise UsageError(
            "--revision goes with hf:USER/REPO; entries state their own in models.toml"
        )
    if "/" in name:
        raise UsageError(f"{name!r} is no model entry; a repository of the hub is hf:{name}")
    return list(load_registry(Path(models) if models else None).find(name).sources())


def _announce(name: str, remote: Sources, plan: Plan, as_json: bool) -> None:
    """Print what a download would do."""
    from .. import hub

    missing, free, listed = plan.missing(), hub.free_bytes(), _listed(remote, plan)
    if as_json:
        content = {"name": name, "size": plan.size, "missing": missing, "free": free}
        click.echo(json_text(content | {"files": [asdict(file) for file in listed]}))
        return
    for file in listed:
        state = "to be fetched" if file.path is None else "is there"
        size = amount(file.size)
        click.echo(f"{file.role:<12} {file.repository}/{file.file}  {size}  {state}")
    wanted = f"{amount(missing)} of {amount(plan.size)} would be fetched"
    click.echo(f"{name}: {wanted}, {amount(free)} are free")


def _listed(remote: Sources, plan: Plan) -> list[_File]:
    """Every role and its files."""
    from .. import hub

    found = []
    for (role, _), model in zip(remote, plan.remotes, strict=True):
        for file in model.files if model else ():
            path = hub.local_copy(file)
            sha256 = file.digest if len(file.digest) == 64 else None
            place = None if path is None else str(path)
            found.append(
                _File(role, file.repository, file.name, file.size, sha256, file.commit, place)
            )
    return found
