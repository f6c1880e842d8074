"""The Hugging Face hub and its cache: find, download, read and verify model files.

Importing this package, and asking for what is downloaded already, needs no network and does not
import the hub's library as a whole.
"""

from .cache import cache_folder, find_local, is_downloaded, local_copy, resolve
from .downloading import (
    Plan,
    Progress,
    download,
    find_file,
    free_bytes,
    gigabytes,
    prepare,
    remote,
)
from .failures import Patience
from .listing import Remote, RemoteFile
from .reading import open_remote
from .verifying import Finding, verify

__all__ = [
    "Finding",
    "Patience",
    "Plan",
    "Progress",
    "Remote",
    "RemoteFile",
    "cache_folder",
    "download",
    "find_file",
    "find_local",
    "free_bytes",
    "gigabytes",
    "is_downloaded",
    "local_copy",
    "open_remote",
    "prepare",
    "remote",
    "resolve",
    "verify",
]
