"""Drafting: what it gives, and what it leaves as it was."""

from .study import Speculation

__all__ = ["Speculation"]
