"""Headers of GGUF files: read fast and checked in full, without llama.cpp and without tensors."""

from .header import TOKENS, Header, Tensor, read_header, read_model, real_path
from .metadata import read_metadata
from .sanity import check_sane, is_usual
from .types import FLOAT32, STRING, TENSOR_TYPES, TensorType, Value
from .vocabulary import VOCABULARY_KEYS, Tokens, check_headers, check_tokens, read_tokens

__all__ = [
    "FLOAT32",
    "STRING",
    "TENSOR_TYPES",
    "TOKENS",
    "VOCABULARY_KEYS",
    "Header",
    "Tensor",
    "TensorType",
    "Tokens",
    "Value",
    "check_headers",
    "check_sane",
    "check_tokens",
    "is_usual",
    "read_header",
    "read_metadata",
    "read_model",
    "read_tokens",
    "real_path",
]
