"""The only module that imports huggingface_hub: model files of the Hugging Face cache."""

from __future__ import annotations

from pathlib import Path

from .errors import RegistryError


def resolve(repository: str, file: str) -> Path:
    """The downloaded copy of a file of a repository.

    Raises:
        RegistryError: where it is not in the cache; says how to get it.
    """
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    if not isinstance(found, str):
        raise RegistryError(
            f"{repository}/{file} is not downloaded yet; get it with: "
            f"hf download {repository} {file}"
        )
    return Path(found)
