"""Model entries: models.toml -> frozen dataclasses, and edits of the user's own file."""

from .entries import (
    DEFAULT_ENTRY,
    EVIDENCE,
    NEUTRAL,
    PROMPTS,
    ROLES,
    THINK,
    Entry,
    Expert,
    Registry,
    Source,
)
from .reading import (
    PACKAGE,
    find_user_file,
    load_registry,
    parse_entries,
    read_entries,
    shipped_entries,
)

__all__ = [
    "DEFAULT_ENTRY",
    "EVIDENCE",
    "NEUTRAL",
    "PACKAGE",
    "PROMPTS",
    "ROLES",
    "THINK",
    "Entry",
    "Expert",
    "Registry",
    "Source",
    "find_user_file",
    "load_registry",
    "parse_entries",
    "read_entries",
    "shipped_entries",
]
