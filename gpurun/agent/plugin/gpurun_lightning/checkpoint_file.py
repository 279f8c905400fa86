"""Read a checkpoint's file: whether it is complete, and its step. Nothing in it is executed."""

import hashlib
import os
import pickletools
import zipfile
from typing import Any, Dict, Optional, Tuple

Stamp = Tuple[int, int, int, int]
BLOCK = 1 << 20
# seconds without a change, after which a file that is not a zip counts as complete
QUIET = 5.0


def stamp(path: str) -> Optional[Stamp]:
    """Return a value that changes whenever the file does; None when there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_complete(path: str, age: float) -> bool:
    """Return whether the file is complete: `torch.save` writes a zip, whose directory comes last.

    `age`: seconds since the last change.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path):
                return True
        with open(path, "rb") as file:
            return age > QUIET and file.read(2) != b"PK"
    except (OSError, zipfile.BadZipFile):
        return False


def facts(path: str) -> Dict[str, Any]:
    """Return {"epoch", "step", "resumable"}; the first two are None when the file does not have them."""
    found: Dict[str, Any] = {"epoch": None, "step": None, "resumable": False}
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(each for each in archive.namelist() if each.endswith("/data.pkl"))
            pickled = archive.read(name)
    except (OSError, StopIteration, zipfile.BadZipFile):
        return found
    found["resumable"] = b"optimizer_states" in pickled
    words = {"epoch": "epoch", "global_step": "step"}  # the first two keys of a Lightning checkpoint
    key = None
    for count, (opcode, value, _) in enumerate(pickletools.genops(pickled)):
        if count > 64:
            break
        if key is not None and isinstance(value, int) and "INT" in opcode.name:
            found[words[key]] = value
            key = None
        elif isinstance(value, str):
            key = value if value in words else None
    return found


def sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while True:
            block = file.read(BLOCK)
            if not block:
                return digest.hexdigest()
            digest.update(block)
