"""Other quantizations of a GGUF file, made by llama.cpp; and how a file's tensors are packed."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import BackendError, ModelFileError, UsageError
from ..gguf import TENSOR_TYPES, Header, check_sane, read_header, read_model
from .library import collected_errors, lib, llama_cpp_version, reason, set_fields

# None of these needs a matrix of importances.
TYPES = (
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S",
    "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K",
)  # fmt: skip
"""What `quantize` makes, as llama.cpp calls it."""

_MEANT = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
_LITTLE = 0.005


@dataclass(frozen=True, slots=True)
class Packing:
    """How the tensors of a file are packed.

    Attributes:
        n_bytes: of all tensors.
        types: type -> how many weights have it.
    """

    n_bytes: int
    types: Mapping[str, int]

    @classmethod
    def of(cls, header: Header) -> Packing:
        """The packing that a header tells of."""
        sizes = {size.name: size for size in TENSOR_TYPES.values()}
        types: dict[str, int] = {}
        for tensor in header.tensors:
            n_weights = tensor.n_bytes // sizes[tensor.type].n_bytes * sizes[tensor.type].block
            types[tensor.type] = types.get(tensor.type, 0) + n_weights
        return cls(sum(tensor.n_bytes for tensor in header.tensors), types)

    @property
    def bits(self) -> float:
        """Bits per weight."""
        return 8 * self.n_bytes / sum(self.types.values())

    @property
    def text(self) -> str:
        """As "Q5_0 80 %, Q4_K 20 %"; types that hardly occur are left out."""
        total = sum(self.types.values())
        shares = sorted(((n / total, name) for name, n in self.types.items()), reverse=True)
        shown = [(share, name) for share, name in shares if share >= _LITTLE]
        if len(shown) == 1 or shown[0][0] > 1 - 2 * _LITTLE:
            return shown[0][1]
        return ", ".join(f"{name} {share:.0%}".replace("%", " %") for share, name in shown)


def type_named(name: str) -> str:
    """The member of `TYPES` that is meant by a name in any case; "Q4_K" is Q4_K_M.

    Raises:
        UsageError: for a name of none.
    """
    upper = name.upper()
    found = _MEANT.get(upper, upper)
    if found not in TYPES:
        raise UsageError(f"unknown quantization {name!r}; known ones: {', '.join(TYPES)}")
    return found


def nominal_bits(name: str) -> float:
    """Bits per weight of a member of `TYPES` where all tensors have the type it is named after."""
    sizes = {size.name: size for size in TENSOR_TYPES.values()}
    size = sizes.get(name) or sizes[name.rpartition("_")[0]]
    return 8 * size.n_bytes / size.block


def quantize(
    source: Path, target: Path, name: str, *, pure: bool = False, threads: int = 1
) -> Packing:
    """Write another quantization of a whole model; `target` is either complete or as it was.

    Tensors whose rows the type does not fit get another one; `Packing` says what came out. What
    is quantized already is unpacked first.

    Args:
        source: a GGUF file, or the first of its shards.
        target: the file to write.
        name: see `type_named`.
        pure: give all matrices that one type, instead of llama.cpp's mixture, which has more bits
            for some of them, such as the output matrix.
        threads: to compute with.

    Returns:
        How the new file is packed.

    Raises:
        UsageError: for an unknown type.
        ModelFileError: where the source is no whole model, or the target cannot be written.
        BackendError: where the installed llama.cpp does not know the type, or fails.
    """
    name = type_named(name)
    header = read_model(source)
    check_sane(header)
    if header.is_adapter:
        raise ModelFileError(f"{source}: an adapter; only whole models are quantized")
    params = _params(name, pure, threads)
    with made_whole(target) as part:
        try:
            _write(source, part, params)
            packing = Packing.of(read_header(part))
        except ModelFileError as error:
            # The half-written file's own name means nothing to anybody.
            told = str(error).removeprefix(f"{part}: ")
            raise ModelFileError(f"cannot write {target}: {told}") from None
    return packing


@contextmanager
def made_whole(target: Path) -> Iterator[Path]:
    """A file to write beside another one, whose place it takes at the end of the block.

    Raises:
        ModelFileError: where it cannot be written; the target is as it was then.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, target)
    except OSError as error:
        raise ModelFileError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def _params(name: str, pure: bool, threads: int) -> lib.llama_model_quantize_params:
    prefix = "LLAMA_FTYPE_ALL_" if name == "F32" else "LLAMA_FTYPE_MOSTLY_"
    ftype = getattr(lib, prefix + name, None)
    if ftype is None:
        raise BackendError(f"llama-cpp-python {llama_cpp_version} does not know {name}")
    params = lib.llama_model_quantize_default_params()
    set_fields(params, ftype=ftype, nthread=threads, allow_requantize=True, pure=pure)
    return params


def _write(source: Path, part: Path, params: lib.llama_model_quantize_params) -> None:
    """Let llama.cpp write; it says little of why it failed.

    Raises:
        OSError: where the file cannot be made.
        ModelFileError: where llama.cpp gave up.
    """
    part.open("wb").close()
    with collected_errors() as errors:
        status = lib.llama_model_quantize(
            str(source).encode(), str(part).encode(), ctypes.byref(params)
        )
    if status != 0:
        is_stream = any("iostream" in line for line in errors)
        raise ModelFileError(
            "is the disk full?" if is_stream else reason("llama.cpp stopped", errors)
        )
