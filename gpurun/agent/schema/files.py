"""What answers tell of files and folders of the host. Paths that are not text come as agent/file_names.py has them."""

from __future__ import annotations

from typing import List, Optional, TypedDict

# A file or a link that a fetch may bring: listed by agent/outputs/listing.py, looked at by fetch/plan.
OutputFile = TypedDict(
    "OutputFile",
    {
        "path": Optional[str],  # relative to the run's directory; None for a link
        "as": str,  # relative to the folder that it is fetched into
        "size": int,
        "mtime_ns": int,
        "ctime_ns": int,
        "inode": int,
        "link": Optional[str],
        "rank": int,
        "grows": bool,
        "writing": Optional[str],
    },
)


class Skipped(TypedDict):
    """What a fetch does not bring, and why. Made by agent/outputs, shown with the fetch."""

    path: str
    why: str
    lost: bool  # the fetch is not complete without it


class FileHash(TypedDict):
    """What a file contains, and whether it is complete. Made by agent/verbs/hash.py, judged by fetch/verify."""

    sha256: Optional[str]
    size: Optional[int]
    mtime_ns: Optional[int]
    inode: Optional[int]
    whole: bool
    cut: bool
    why: Optional[str]
    gone: bool  # nothing is at the path any more
    prefix_sha256: Optional[str]


class LeftOfRun(TypedDict):
    """What could not be removed of a run."""

    run: str
    path: str
    bytes: int
    why: str


class PushNote(TypedDict, total=False):
    """What is noted of the pushes of a data folder, below cache/pushed/. Written by the verb `data`, read by `data_folders`."""

    began: Optional[float]  # the last push
    pushed: Optional[float]  # the last complete one


class DataFolder(TypedDict):
    """A folder of lasting data. Made by agent/verbs/data_folders.py, shown by `data ls`."""

    name: str
    path: str
    bytes: int
    files: int
    counted: bool
    began: Optional[float]
    pushed: Optional[float]
    used_by: List[str]


class MeasuredData(TypedDict):
    """A data folder that would go with the host. Made by agent/uninstall.py."""

    files: int
    bytes: int
    stamp: str


class Stays(TypedDict):
    """What is not removed from a host, and why. Made by agent/uninstall.py, shown by `host leave`."""

    path: str
    why: str
