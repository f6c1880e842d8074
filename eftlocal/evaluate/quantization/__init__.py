"""What quantizing each role does to the fused distribution, and to what is replied."""

from .study import Quantization
from .subject import Subject, read_texts

__all__ = ["Quantization", "Subject", "read_texts"]
