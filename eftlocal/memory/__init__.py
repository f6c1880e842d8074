"""What a trio of models needs in memory, from the headers of its files, and what fits where.

Pure Python: nothing here needs llama.cpp, and no tensor is read.
"""

from .machine import Device, ram
from .needs import ModelNeed, Need, need, need_of_files
from .planning import Plan, plan
from .sizes import Sizes, can_rewind, sizes_of

__all__ = [
    "Device",
    "ModelNeed",
    "Need",
    "Plan",
    "Sizes",
    "can_rewind",
    "need",
    "need_of_files",
    "plan",
    "ram",
    "sizes_of",
]
