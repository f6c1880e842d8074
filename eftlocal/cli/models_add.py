"""`eftlocal models add`: a new entry in the user's file, once its models are known to fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import HubError, UsageError
from ..registry import PROMPTS, Entry, Expert, Source
from .models_file import chosen_file, models_file
from .options import check_text, option, with_hub

if TYPE_CHECKING:
    from ..gguf import Header

_EPILOG = """\b
Examples:
  eftlocal models add mine --base L.gguf --tuned S-chat.gguf --reference S.gguf
  eftlocal models add qwen --base hf:mradermacher/Qwen2.5-7B-GGUF:Q4_K_M \\
      --tuned hf:mradermacher/Qwen2.5-0.5B-Instruct-GGUF:Q8_0 \\
      --reference hf:mradermacher/Qwen2.5-0.5B-GGUF/Qwen2.5-0.5B.Q8_0.gguf

A file is a path, hf:USER/REPO[:QUANT] or hf:USER/REPO/FILE.gguf. Nothing is written before the
vocabularies of all models were compared; of files on the hub only the headers are fetched for that.
"""


@click.command(epilog=_EPILOG, short_help="Add an entry to your own file.")
@click.argument("name")
@option("--base", metavar="FILE", envvar=None, help="The base model.")
@option(
    "--tuned",
    metavar="FILE",
    envvar=None,
    multiple=True,
    help="The tuned model, or a LoRA adapter on the reference; repeatable for several experts.",
)
@option(
    "--reference",
    metavar="FILE",
    envvar=None,
    multiple=True,
    help="What it was tuned from; one for all experts, or one for each.",
)
@option(
    "--hf-repo",
    "-hf",
    "hub",
    metavar="USER/REPO[:QUANT]",
    envvar=None,
    multiple=True,
    help="The same as hf:USER/REPO[:QUANT] for the next role without a file.",
)
@option("--description", metavar="TEXT", envvar=None, default="", help="One line for lists.")
@option("--alias", "aliases", metavar="NAME", envvar=None, multiple=True, help="Another name.")
@option(
    "--prompt",
    type=click.Choice(PROMPTS),
    envvar=None,
    default=PROMPTS[0],
    help="tuned-only gives base and reference plain text instead of the chat template.",
)
@option("--ctx", type=click.IntRange(0), envvar=None, help="Context length in tokens.")
@option("--force", is_flag=True, envvar=None, help="Replace an entry of this name in your file.")
@option(
    "--no-check",
    is_flag=True,
    envvar=None,
    help="Do not look at the models, as when the hub cannot be reached.",
)
@models_file
@click.pass_context
def add(context: click.Context, /, name: str, models: str | None, **given: Any) -> None:
    """Add an entry to your own file, after comparing the vocabularies of its models."""
    from ..registry.editing import add_entry, check_name

    file = chosen_file(context, models)
    entry = _entry(name, given)
    check_name(file, name, given["force"])
    headers: Mapping[str, Header] = {}
    if not given["no_check"]:
        from ..compatibility import check_entry

        entry = _mapped(entry, _found)
        headers = check_entry(entry)
        entry = _mapped(entry, _described)
    add_entry(file, entry, given["force"])
    click.echo(f"added {name} to {file}")
    _advise(entry, headers)


def _entry(name: str, given: Mapping[str, Any]) -> Entry:
    """The entry that the options describe, with absolute paths."""
    check_text(given["description"], "--description")
    named = {role: given[role] for role in ("base", "tuned", "reference") if given[role]}
    named = with_hub(named, given["hub"])
    missing = " and ".join(
        f"--{role}" for role in ("base", "tuned", "reference") if role not in named
    )
    if missing:
        raise UsageError(f"{missing} missing: a model is a base, a tuned and a reference file")
    entry = Entry.from_files(named["base"], named["tuned"], named["reference"])
    entry = replace(
        entry,
        name=name,
        description=given["description"],
        aliases=tuple(given["aliases"]),
        prompt=given["prompt"],
        neutral="control" if given["prompt"] == "tuned-only" else "none",
        runtime={} if given["ctx"] is None else {"ctx": given["ctx"]},
    )
    return _mapped(entry, _absolute)


def _mapped(entry: Entry, change: Any) -> Entry:
    """The entry with every source changed, equal ones once."""
    known: dict[Source, Source] = {}
    for _, source in entry.sources():
        if source not in known:
            known[source] = change(source)
    experts = tuple(
        Expert(expert.name, known[expert.tuned], known[expert.reference])
        for expert in entry.experts
    )
    return replace(entry, base=known[entry.base], experts=experts)


def _absolute(source: Source) -> Source:
    return source if source.path is None else replace(source, path=Path.cwd() / source.path)


def _found(source: Source) -> Source:
    """The source with the name of its file."""
    from .. import hub

    return source if source.path is not None else hub.find_file(source)


def _described(source: Source) -> Source:
    """The source with what the hub says of it now, so that the entry keeps meaning this file."""
    if source.path is not None:
        return source
    from .. import hub

    try:
        remote = hub.remote(source)
    except HubError:
        # What is here already can be used as it is.
        if hub.is_downloaded(source):
            return source
        raise
    return replace(source, size=remote.size, sha256=remote.sha256, revision=remote.revision)


def _advise(entry: Entry, headers: Mapping[str, Header]) -> None:
    """Say what comes next."""
    from .. import hub

    if all(hub.is_downloaded(source) for _, source in entry.sources()):
        click.echo(f"talk to it with: eftlocal chat -m {entry.name}")
    else:
        click.echo(f"fetch it with: eftlocal pull {entry.name}")
    tuned = next((header for role, header in headers.items() if role.endswith("tuned")), None)
    if tuned is None or "tuned" in entry.templates:
        return
    if not tuned.is_adapter and not tuned.text("tokenizer.chat_template"):
        click.echo(
            f"eftlocal: {tuned.name} has no chat template; for chat give the entry one with "
            'templates = { tuned = { path = "FILE.jinja" } }, or "plain"',
            err=True,
        )
