"""The header of a GGUF file: everything before the tensors' data, and whether that can be right.

What llama.cpp would refuse is refused here in one line, and most of what would end its process.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ModelFileError
from .reader import LONGEST_TEXT, Damaged, Reader
from .types import ARRAY, NUMBERS, STRING, TENSOR_TYPES, UINT32, Listed, Value

TOKENS = "tokenizer.ggml.tokens"
TOKEN_TYPES = "tokenizer.ggml.token_type"

_MAGIC = b"GGUF"
_LONGEST_KEY = (1 << 16) - 1
_LONGEST_NAME, _MOST_DIMENSIONS, _MOST_BYTES = 63, 4, 1 << 62
_MOST_KEYS, _MOST_TENSORS = 1 << 14, 1 << 15
_LEAST_KEY_BYTES, _LEAST_TENSOR_BYTES = 13, 24
_DEFAULT_ALIGNMENT = 32
_OTHER = "not a GGUF file (it does not begin with 'GGUF')"
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file.

    Attributes:
        shape: ggml's order, the length of a row first.
        type: such as "Q4_0".
        n_bytes: of its data.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says before its tensors' data.

    Attributes:
        name: what messages call the file.
        metadata: key -> value; a list's value is a tuple of numbers or a list of bytes, None
            where it was not kept.
        lists: key -> type and length, of every list.
        tensors: in the file's order; of all shards where `read_model` read them.
        n_bytes: of the file, or of all shards.
    """

    name: str
    metadata: Mapping[str, Value]
    lists: Mapping[str, Listed]
    tensors: tuple[Tensor, ...]
    n_bytes: int

    @property
    def architecture(self) -> str:
        """Such as "llama"; "" where the file does not say."""
        return self.text("general.architecture")

    @property
    def n_tokens(self) -> int:
        """Length of the vocabulary, padding included; 0 where it has none."""
        found = self.lists.get(TOKENS)
        return found.length if found else 0

    @property
    def is_adapter(self) -> bool:
        """Whether it is no whole model."""
        return self.text("general.type") == "adapter"

    def text(self, key: str) -> str:
        """The string under a key; "" where there is none."""
        found = self.metadata.get(key)
        return found.value if found is not None and isinstance(found.value, str) else ""

    def number(self, key: str, default: float = 0) -> float:
        """The finite number under a key of the architecture ("block_count"), or `default`."""
        found = self.metadata.get(f"{self.architecture}.{key}")
        value = found.value if found is not None else None
        return value if isinstance(value, int | float) and math.isfinite(value) else default

    def numbers(self, key: str, count: int, default: float = 0) -> tuple[float, ...]:
        """The same for a key that may have one number per layer: `count` of them."""
        found = self.metadata.get(f"{self.architecture}.{key}")
        values = found.value if found is not None else None
        if isinstance(values, tuple) and len(values) >= count and all(map(_is_finite, values)):
            return values[:count]
        return (self.number(key, default),) * count


def read_header(
    file: Path | BinaryIO, name: str | None = None, keep: Collection[str] = ()
) -> Header:
    """Read and check the header of one file; a 152k vocabulary takes a few milliseconds.

    Args:
        file: a path, or a seekable file; only the header is read, in pieces that grow.
        name: what messages call it, by default the path.
        keep: keys of long lists whose values are wanted, such as `TOKENS`.

    Raises:
        ModelFileError: where the file is missing, cannot be read, is no GGUF, ends too early, or
            says what cannot be; one line that names it.
    """
    if isinstance(file, Path):
        _check_is_file(file)
        with _readable(file), file.open("rb") as opened:
            return read_header(opened, name or str(file), keep)
    name = name or str(getattr(file, "name", "the file"))
    with _readable(name):
        size = file.seek(0, 2)
        file.seek(0)
    try:
        with _readable(name):
            return _read(Reader(file, size), name, keep)
    except Damaged as error:
        raise ModelFileError(f"{name}: {error}") from None


def real_path(path: Path) -> Path:
    """The path of a file with symbolic links followed, so that one file has one path.

    A shard keeps its name, by which the other shards beside it are found; the hub's cache links
    such names to files that are called otherwise.
    """
    if _SHARD.fullmatch(path.name):
        return path.parent.resolve() / path.name
    return path.resolve()


def read_model(path: Path, keep: Collection[str] = ()) -> Header:
    """Read the header of a file, and where it is the first of several shards, of all of them.

    Raises:
        ModelFileError: as `read_header` does, or where a shard is missing or not the first.
    """
    first = read_header(path, keep=keep)
    n_shards = first.metadata.get("split.count")
    if n_shards is None or not isinstance(n_shards.value, int) or n_shards.value < 2:
        return first
    found = _SHARD.fullmatch(path.name)
    if found is None or int(found[3]) != n_shards.value:
        raise ModelFileError(
            f"{path}: one of {n_shards.value} shards, but not called NAME-00001-of-"
            f"{n_shards.value:05d}.gguf; give it back the name that it was published under"
        )
    names = [f"{found[1]}-{i:05d}-of-{found[3]}.gguf" for i in range(1, int(found[3]) + 1)]
    if path.name != names[0]:
        raise ModelFileError(f"{path}: not the first shard; use {names[0]}")
    headers = [first]
    for other in names[1:]:
        if not path.with_name(other).exists():
            raise ModelFileError(f"{path}: the shard {other} is missing beside it")
        headers.append(read_header(path.with_name(other)))
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    n_bytes = sum(header.n_bytes for header in headers)
    return Header(first.name, first.metadata, first.lists, tensors, n_bytes)


def _check_is_file(path: Path) -> None:
    if not path.exists():
        raise ModelFileError(f"{path}: no such file")
    if not path.is_file():
        raise ModelFileError(f"{path}: not a file")


@contextmanager
def _readable(name: Path | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelFileError(f"{name}: cannot be read ({error.strerror or error})") from error


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _read(reader: Reader, name: str, keep: Collection[str]) -> Header:
    n_tensors, n_keys = _read_counts(reader)
    metadata: dict[str, Value] = {}
    lists: dict[str, Listed] = {}
    for _ in range(n_keys):
        key = _key(reader)
        if key in metadata:
            raise Damaged(f"damaged: its metadata have {_short(key)} twice")
        metadata[key] = _value(reader, key, lists, key in keep)
    alignment = _alignment(metadata)
    tensors: list[Tensor] = []
    n_data = 0
    names: set[str] = set()
    for _ in range(n_tensors):
        tensor, offset = _tensor(reader)
        if tensor.name in names:
            raise Damaged(f"damaged: it has the tensor {_short(tensor.name)} twice")
        if offset != n_data:
            raise Damaged(f"damaged: the tensor {_short(tensor.name)} lies where none can lie")
        names.add(tensor.name)
        tensors.append(tensor)
        n_data = _aligned(offset + tensor.n_bytes, alignment)
        end = offset + tensor.n_bytes
    start = _aligned(reader.position, alignment)
    if tensors and start + end > reader.size:
        missing = start + end - reader.size
        raise Damaged(f"the file is not complete: its last {missing:,} bytes are missing")
    return Header(name, metadata, lists, tuple(tensors), reader.size)


def _read_counts(reader: Reader) -> tuple[int, int]:
    """Check what a file begins with; return its numbers of tensors and keys."""
    if reader.size < 4:
        raise Damaged(_OTHER)
    magic = reader.number(UINT32, "its first bytes").to_bytes(4, "little")
    if magic != _MAGIC:
        raise Damaged(_OTHER)
    version = reader.number(UINT32, "its first bytes")
    if version not in (2, 3):
        if version and version & 0xFFFF == 0:
            raise Damaged("a GGUF file for big-endian machines; get one for this machine")
        known = "GGUF versions 2 and 3 are read"
        raise Damaged(f"it says that it has version {version} of the format; {known}")
    n_tensors, n_keys = (reader.number(10, "its first bytes") for _ in range(2))
    for count, most, least, what in (
        (n_tensors, _MOST_TENSORS, _LEAST_TENSOR_BYTES, "tensors"),
        (n_keys, _MOST_KEYS, _LEAST_KEY_BYTES, "keys"),
    ):
        if count > most:
            raise Damaged(f"damaged: it says that it has {count:,} {what}")
        if count > reader.left // least:
            raise Damaged(f"the file ends before its {count:,} {what}")
    return n_tensors, n_keys


def _key(reader: Reader) -> str:
    key = reader.text("its metadata", _LONGEST_KEY)
    if not key:
        raise Damaged("damaged: a key of its metadata is empty or too long")
    return key.decode("utf-8", "replace")


def _value(reader: Reader, key: str, lists: dict[str, Listed], keep: bool) -> Value:
    what = f"its metadata, at {_short(key)}"
    kind = reader.number(UINT32, what)
    if kind == STRING:
        return Value(kind, reader.text(what, LONGEST_TEXT).decode("utf-8", "replace"))
    if kind in NUMBERS:
        return Value(kind, reader.number(kind, what))
    if kind != ARRAY:
        raise Damaged(f"damaged: {_short(key)} has a type that GGUF does not know ({kind})")
    inner, count = reader.number(UINT32, what), reader.number(10, what)
    lists[key] = Listed(inner, count)
    if inner == STRING:
        return Value(kind, reader.strings(count, what, keep))
    if inner not in NUMBERS:
        raise Damaged(f"damaged: {_short(key)} is a list of a type that GGUF does not know")
    return Value(kind, reader.numbers(inner, count, what, keep))


def _alignment(metadata: Mapping[str, Value]) -> int:
    found = metadata.get("general.alignment")
    if found is None:
        return _DEFAULT_ALIGNMENT
    value: Any = found.value
    if found.kind != UINT32 or value == 0 or value & (value - 1):
        raise Damaged("damaged: general.alignment is no power of two")
    return int(value)


def _tensor(reader: Reader) -> tuple[Tensor, int]:
    """The next tensor, and how far behind the first one its data begin."""
    what = "its list of tensors"
    data = reader.text(what, _LONGEST_NAME)
    if not data:
        raise Damaged("damaged: the name of a tensor is empty or too long")
    name = data.decode("utf-8", "replace")
    n_dimensions = reader.number(UINT32, what)
    if n_dimensions > _MOST_DIMENSIONS:
        raise Damaged(f"damaged: the tensor {_short(name)} has {n_dimensions} dimensions")
    shape = tuple(reader.number(10, what) for _ in range(n_dimensions))
    kind, offset = reader.number(UINT32, what), reader.number(10, what)
    if kind not in TENSOR_TYPES:
        raise Damaged(
            f"the tensor {_short(name)} has an unknown type ({kind}): the file is damaged, or made "
            "for another llama.cpp"
        )
    size = TENSOR_TYPES[kind]
    n_numbers = 1
    for length in shape:
        n_numbers *= length
    if not 0 < n_numbers < _MOST_BYTES or (shape[0] if shape else 1) % size.block:
        raise Damaged(f"damaged: the tensor {_short(name)} cannot have the shape {list(shape)}")
    return Tensor(name, shape, size.name, n_numbers // size.block * size.n_bytes), offset


def _aligned(n_bytes: int, alignment: int) -> int:
    return -(-n_bytes // alignment) * alignment


def _short(text: str) -> str:
    """A key or name as a message can show it."""
    return repr(text if len(text) <= 60 else text[:60] + "...")
