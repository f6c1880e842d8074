"""Dynamic alpha: how much of the delta each token takes, searched in its logits. Pure NumPy."""

from .search import Alpha, AlphaSettings, search_alpha, search_row

__all__ = ["Alpha", "AlphaSettings", "search_alpha", "search_row"]
