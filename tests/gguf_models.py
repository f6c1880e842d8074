"""The writer of small random models, under the name that tests know it by."""

from __future__ import annotations

from eftlocal.bench.random_models import (
    BOS,
    CHAT_TEMPLATE,
    END,
    EOS,
    MARKERS,
    ModelShape,
    vocabulary,
    write_gguf,
)

__all__ = [
    "BOS",
    "CHAT_TEMPLATE",
    "END",
    "EOS",
    "MARKERS",
    "ModelShape",
    "vocabulary",
    "write_gguf",
]
