"""File names in repositories: quantizations and shards."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import HubError

_SHARD = re.compile(r"(.*-)(\d{5})-of-(\d{5})(\.gguf)", re.IGNORECASE | re.DOTALL)
_QUANT = re.compile(r"(?<![A-Za-z0-9])(?:I?Q\d\w*|BF16|F16|F32|FP16|MXFP4\w*)(?![A-Za-z0-9])", re.I)
_NO_MODEL = re.compile(r"mmproj|imatrix", re.IGNORECASE)
"""Files that stand beside models and are none."""


def shards_of(name: str) -> list[str]:
    """All files that make up one model: for a shard its whole set, else the file alone.

    Shards are called NAME-00001-of-00003.gguf.
    """
    match = _SHARD.fullmatch(name)
    if match is None:
        return [name]
    start, _, count, end = match.groups()
    return [f"{start}{i:05}-of-{count}{end}" for i in range(1, int(count) + 1)]


def models_in(names: Iterable[str]) -> list[str]:
    """The GGUF models among the files of a repository; of a set of shards the first one."""
    found: dict[str, None] = {}
    for name in sorted(names):
        if name.lower().endswith(".gguf") and not _NO_MODEL.search(name):
            found.setdefault(shards_of(name)[0], None)
    return list(found)


def choose(names: Iterable[str], quant: str) -> str | None:
    """The model of a quantization among the files of a repository; the shortest of several names.

    Case does not matter, and "Q4_K" does not mean "Q4_K_M".
    """
    wanted = re.compile(
        rf"(?<![A-Za-z0-9]){re.escape(quant)}(?![A-Za-z0-9_])", re.IGNORECASE | re.ASCII
    )
    fitting = [name for name in models_in(names) if wanted.search(name)]
    return min(fitting, key=lambda name: (len(name), name), default=None)


def describe(names: Iterable[str], limit: int = 8) -> str:
    """What a repository has, for error messages: its quantizations, or else its GGUF files."""
    models = models_in(names)
    quants = list(dict.fromkeys(found[-1] for name in models if (found := _QUANT.findall(name))))
    listed = quants if len(quants) == len(models) else models
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return (", ".join(listed[:limit]) + more) or "no GGUF files"


def check_name(name: str, what: str = "file name") -> str:
    """Return a name that cannot lead out of the cache.

    Raises:
        HubError: for one that is no plain relative path.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or re.search(r'[\\:\x00-\x1f<>|?*"]', name):
        raise HubError(f"{name!r} is not a {what} that can be stored; check the model entry")
    return name
