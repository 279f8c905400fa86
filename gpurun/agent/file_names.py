"""Convert file names between bytes on the disk and text on the wire, and list the names of caches.

Text has surrogate escapes, whatever the locale of the host is.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Tuple

# Programs make these again when they need them, and they are often larger than the job's results.
CACHES = frozenset(
    [
        b"__pycache__", b".cache", b".ipynb_checkpoints", b".pytest_cache", b".mypy_cache", b".ruff_cache",
        b".triton", b".nv", b".numba_cache", b".venv", b"venv", b"node_modules", b"torchinductor_cache",
    ]
)  # fmt: skip
CACHE_FILES = ("*.pyc", "*.pyo", ".nfs????????????????*", ".DS_Store")


def to_wire(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def from_wire(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def matches(name: bytes, patterns: Tuple[str, ...]) -> bool:
    return any(fnmatchcase(to_wire(name), pattern) for pattern in patterns)
