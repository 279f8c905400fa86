"""What a checkpoint's own file tells: whether it is whole, and of which step it is. Nothing of it is executed."""

import hashlib
import os
import pickletools
import zipfile
from typing import Any, Dict, Optional, Tuple

Stamp = Tuple[int, int, int, int]
BLOCK = 1 << 20
# For a file that is no zip: nothing but its holding still says that it is whole.
QUIET = 5.0


def stamp(path: str) -> Optional[Stamp]:
    """Changes whenever the file does; None for what is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def is_whole(path: str, age: float) -> bool:
    """`torch.save` writes a zip, whose directory comes last. `age` is the seconds since its last change."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path):
                return True
        with open(path, "rb") as file:
            return age > QUIET and file.read(2) != b"PK"
    except (OSError, zipfile.BadZipFile):
        return False


def facts(path: str) -> Dict[str, Any]:
    """{"epoch", "step", "resumable"}: the first two are None when the file does not say, or is not Lightning's."""
    found: Dict[str, Any] = {"epoch": None, "step": None, "resumable": False}
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(one for one in archive.namelist() if one.endswith("/data.pkl"))
            pickled = archive.read(name)
    except (OSError, StopIteration, zipfile.BadZipFile):
        return found
    found["resumable"] = b"optimizer_states" in pickled
    words = {"epoch": "epoch", "global_step": "step"}  # the first two keys of what Lightning saves
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
