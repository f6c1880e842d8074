"""What works on this machine and what does not: the build, memory, files, model entries."""

from .entries import EntryReport, Problem, check_entry
from .facts import Facts, gather
from .prompts import compare_prompts

__all__ = [
    "EntryReport",
    "Facts",
    "Problem",
    "check_entry",
    "compare_prompts",
    "gather",
]
