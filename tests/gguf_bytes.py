"""GGUF headers written byte by byte, also such as no tool would write."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

NUMBER_FORMATS = {4: "<I", 5: "<i", 6: "<f", 10: "<Q", 7: "<?"}


def text(data: bytes) -> bytes:
    """One string."""
    return struct.pack("<Q", len(data)) + data


def number(kind: int, value: float) -> bytes:
    """One metadata value that is a number."""
    return struct.pack("<I", kind) + struct.pack(NUMBER_FORMATS[kind], value)


def string(data: bytes) -> bytes:
    """One metadata value that is a string."""
    return struct.pack("<I", 8) + text(data)


def strings(values: Sequence[bytes]) -> bytes:
    """One metadata value that is a list of strings."""
    return struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(text, values))


def numbers(kind: int, values: Sequence[float]) -> bytes:
    """One metadata value that is a list of numbers."""
    data = b"".join(struct.pack(NUMBER_FORMATS[kind], value) for value in values)
    return struct.pack("<IIQ", 9, kind, len(values)) + data


def tensor(name: bytes, shape: Sequence[int], kind: int, offset: int) -> bytes:
    """One line of the list of tensors."""
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + sizes + struct.pack("<IQ", kind, offset)


def header(
    metadata: Mapping[bytes, bytes] | Sequence[tuple[bytes, bytes]] = (),
    tensors: Sequence[bytes] = (),
    data: int = 0,
    version: int = 3,
) -> bytes:
    """A whole file: keys with encoded values, encoded tensors, so many bytes of data."""
    pairs = list(metadata.items()) if isinstance(metadata, Mapping) else list(metadata)
    start = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(pairs))
    content = start + b"".join(text(key) + value for key, value in pairs) + b"".join(tensors)
    return content + bytes(-len(content) % 32 + data)


def shard(path: Path, number_of: int, count: int, offset: int = 0) -> Path:
    """One of several shards with a tensor of 32 floats, written to `path`."""
    metadata = {
        b"general.architecture": string(b"llama"),
        b"split.count": number(4, count),
        b"split.no": number(4, number_of),
    }
    lines = [tensor(f"blk.{number_of}.x.weight".encode(), [32], 0, offset)]
    path.write_bytes(header(metadata, lines, 128))
    return path
