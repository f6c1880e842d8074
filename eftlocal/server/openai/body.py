"""Request bodies: strict types, and no unknown names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from ..failures import ApiError

_LONGEST_NAME = 60
_MOST_ENTRIES = 4096
"""Of an object in a body; pydantic would go through all of them, however wrong they are."""


class Body(BaseModel):
    """A request body or a part of one; null means that a field is not given.

    Numbers are not read from strings, NaN and infinities are refused, and a name that is not known
    is an error: a misspelt option must not be silently left out.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        known = names_of(cls)
        for name, value in data.items() if isinstance(data, Mapping) else ():
            if name not in known:
                shown = str(name)[:_LONGEST_NAME]
                near = difflib.get_close_matches(shown, known, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ApiError(400, f"{shown!r} is not a known field{hint}", param=shown)
            if isinstance(value, Mapping) and len(value) > _MOST_ENTRIES:
                message = f"{name} has {len(value):,} entries; use at most {_MOST_ENTRIES:,}"
                raise ApiError(400, message, param=name)
        return data


def names_of(body: type[BaseModel]) -> dict[str, str]:
    """The fields of a body: name in JSON -> attribute."""
    return {field.alias or name: name for name, field in body.model_fields.items()}
