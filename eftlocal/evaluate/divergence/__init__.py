"""Where fusing changes something, token by token."""

from .study import Divergence

__all__ = ["Divergence"]
