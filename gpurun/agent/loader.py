"""Unpack the agent on a host. This file is sent as text before the host has an agent: no module imports it.

argv: the agent's folder (named by its content), the verb, the archive's size. stdin: exactly the archive, then the
request, which is left for the agent to read. The loader unpacks beside the agent's folder and renames, so that no
half-unpacked agent ever runs. It also replaces an agent that was damaged. When it cannot unpack, it answers the request
with the reason. Any Python 3 must be able to run this file.
"""

import errno
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile


def read_exactly(size: int) -> bytes:
    """Return `size` bytes of stdin and not one byte more. Exit with 91 when stdin ends before."""
    data = b""
    while len(data) < size:
        part = os.read(0, min(size - len(data), 65536))
        if not part:
            sys.exit(91)
        data += part
    return data


def is_complete(archive: tarfile.TarFile, place: str) -> bool:
    """Return whether `place` holds every file of the archive with the same content."""
    for member in archive.getmembers():
        path = os.path.join(place, member.name)
        if not os.path.isfile(path):
            return False
        packed_file = archive.extractfile(member)
        with open(path, "rb") as file:
            if packed_file is None or file.read() != packed_file.read():
                return False
    return True


def sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def unpack(archive: tarfile.TarFile, place: str) -> None:
    above = os.path.dirname(place)
    for folder in (os.path.dirname(above), above):  # makedirs applies its mode only to the last folder
        os.makedirs(folder, mode=0o700, exist_ok=True)
    beside = tempfile.mkdtemp(dir=above, prefix=".new-")
    if hasattr(tarfile, "data_filter"):
        archive.extraction_filter = tarfile.data_filter
    archive.extractall(beside)
    for folder, _, names in os.walk(beside):
        for name in names:
            sync(os.path.join(folder, name))
        sync(folder)
    try:
        os.rename(beside, place)
    except OSError:
        # Another process was faster, or the folder there is damaged.
        if not is_complete(archive, place):
            os.rename(place, tempfile.mkdtemp(dir=above, prefix=".old-"))
            os.rename(beside, place)
    shutil.rmtree(beside, ignore_errors=True)
    sync(above)


def refuse(failure: OSError, folder: str) -> None:
    """Report to the laptop why gpurun's folder cannot be used."""
    if failure.errno in (errno.ENOSPC, errno.EDQUOT):
        code, what, next_step = "disk_full", "the host's disk is full", "free space there, or name a roomier disk"
    else:
        code, what = "root", "gpurun cannot keep its files in %s: %s" % (folder, os.strerror(failure.errno or 0))
        next_step = "name a folder of your own"
    error = {
        "code": code,
        "what": what,
        "where": str(failure.filename or folder),
        "next": next_step + ": gpurun host add NAME --root FOLDER",
        "exit": 125,
    }
    nonce = json.loads(sys.stdin.readline())["nonce"]
    sys.stdout.write("\n" + nonce + "\n" + json.dumps({"ok": False, "error": error}) + "\n")


place, verb, size = sys.argv[1:4]
with tarfile.open(fileobj=io.BytesIO(read_exactly(int(size)))) as packed:
    try:
        if not is_complete(packed, place):
            unpack(packed, place)
    except OSError as failed:
        refuse(failed, os.path.dirname(os.path.dirname(place)))
        sys.exit(0)
os.execv(sys.executable, [sys.executable, "-I", "-S", place, verb])
