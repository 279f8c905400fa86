"""Brings the agent to its place on a host. It is sent as text, before there is an agent: nothing imports it.

argv: the agent's folder (named by its content), the verb, the archive's size. stdin: exactly the archive, then the
question, which is left for the agent to read. It unpacks beside the place and renames, so that no half-unpacked
agent is ever run, and puts right what somebody has damaged. Any Python 3 must be able to read this file.
"""

import io
import os
import shutil
import sys
import tarfile
import tempfile


def read_exactly(size: int) -> bytes:
    """`size` bytes of stdin and not one more, or exit 91 when they do not come."""
    data = b""
    while len(data) < size:
        part = os.read(0, min(size - len(data), 65536))
        if not part:
            sys.exit(91)
        data += part
    return data


def is_whole(archive: tarfile.TarFile, place: str) -> bool:
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
    for folder in (os.path.dirname(above), above):  # makedirs gives its mode to the last one alone
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
        # Somebody was faster, or what stands there is damaged.
        if not is_whole(archive, place):
            os.rename(place, tempfile.mkdtemp(dir=above, prefix=".old-"))
            os.rename(beside, place)
    shutil.rmtree(beside, ignore_errors=True)
    sync(above)


place, verb, size = sys.argv[1:4]
with tarfile.open(fileobj=io.BytesIO(read_exactly(int(size)))) as packed:
    if not is_whole(packed, place):
        unpack(packed, place)
os.execv(sys.executable, [sys.executable, "-I", "-S", place, verb])
