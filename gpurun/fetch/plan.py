"""What is to be fetched: the agent's list, read with distrust, and put into the order in which it comes.
Pure.

Names are `str` with surrogate escapes, so that any bytes travel: `os.fsencode` gives the name on disk.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpurun.agent import vocabulary as words
from gpurun.errors import GpurunError
from gpurun.job import ignore
from gpurun.store.fetched_files import PRIVATE

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import OutputsAnswer
    from gpurun.agent.schema.files import OutputFile
    from gpurun.agent.schema.run import RunRecord

GROUP_BYTES = 500_000_000  # what is placed at once; also bounds one question for hashes
SMALL_GROUP_BYTES = 16_000_000  # not worth a transfer of its own
GROUP_FILES = 20_000

_RECORDS = frozenset(["job.json", "events.jsonl", "exit.json", "prepare.log", "environment.json", "hooks.log"])
_FOLDERS = frozenset(["workspace", "out", "outside", "attempts"])


# A fetched file that looks like one is its owner's alone. Wider than what a submit leaves out: nothing is lost by it.
_SECRETS = re.compile(
    rf"{ignore.SECRET_NAMES}|\.env\..*|.*\.(key|jks|keystore|kdbx|ovpn)"
    r"|\.(npmrc|htpasswd|boto|s3cfg)|kubeconfig.*"
    r"|(.*[._-])?(credentials?|secrets?|tokens?|passwords?|passwd|api[_-]?keys?)([._-].*)?",
    re.IGNORECASE | re.DOTALL,
)
_SECRET_FOLDERS = frozenset([".ssh", ".aws", ".azure", ".gnupg", ".kube", ".docker", "gcloud", ".kaggle"])


@dataclass(frozen=True)
class Item:
    """One file, or one symbolic link when `link` is set. Sizes in bytes, times in ns since 1970."""

    path: str  # below the run's directory on the host; empty for a link
    to: str  # below the destination
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    link: str | None
    rank: int
    grows: bool
    writing: str | None  # why it is not whole now, as far as the host could tell at a glance

    @property
    def stamp(self) -> list[int]:
        """Changes when the host's file does, also when its writer sets the mtime back."""
        return [self.size, self.mtime_ns, self.ctime_ns, self.inode]


@dataclass(frozen=True)
class Left:
    """Something that was not brought, and why. `lost`: the fetch is not whole without it."""

    path: str
    why: str
    lost: bool = True


@dataclass(frozen=True)
class Listing:
    """What the host says that a run wrote."""

    root: str  # the run's directory there
    live: bool
    items: tuple[Item, ...]
    left: tuple[Left, ...]
    container: bool  # there may be more, outside the workspace, which takes longer to find
    attempt: int
    stamp: str | None = None  # the host's, for what this lists
    hook: bool = False  # the run has ended, and counts as live because a hook of it still runs
    unknown: RunRecord | None = None  # the run's record, when the host does not know how it is


def read_listing(answer: OutputsAnswer) -> Listing:
    """The agent's answer to `outputs`. An entry that would lead out of the destination is left, and told."""
    items: list[Item] = []
    left = [Left(str(entry["path"]), str(entry["why"]), bool(entry.get("lost", True))) for entry in answer["skipped"]]
    sources: set[str] = set()
    for entry in answer["files"]:
        why = _refusal(entry)
        if why is None and entry["link"] is None:
            # Each file in staging goes to one place.
            why = "the host lists the same file twice" if entry["path"] in sources else None
            sources.add(str(entry["path"]))
        if why is None:
            items.append(
                Item(
                    entry["path"] or "",
                    entry["as"],
                    entry["size"],
                    entry["mtime_ns"],
                    entry["ctime_ns"],
                    entry["inode"],
                    entry["link"],
                    entry["rank"],
                    bool(entry["grows"]),
                    entry["writing"],
                )
            )
        else:
            left.append(Left(str(entry.get("as")), why))
    root = str(answer["root"])
    if not root.startswith("/") or "\0" in root:
        raise GpurunError("the host named no folder of the run", "this is a bug of gpurun, or not gpurun's agent there")
    record, stamp = answer["record"], answer.get("stamp")
    return Listing(
        root,
        bool(answer["live"]),
        tuple(items),
        tuple(left),
        bool(answer.get("container")),
        int(record.get("attempt", 1)),
        stamp if isinstance(stamp, str) else None,
        bool(answer["live"]) and record.get("state") in words.ENDS,
        record if answer["live"] and record.get("state") == words.UNKNOWN else None,
    )


def _refusal(entry: OutputFile) -> str | None:
    """Why this entry of a host, which may lie, is not taken; None when it is fine."""
    to, link, path = entry.get("as"), entry.get("link"), entry.get("path")
    counts, times = (
        (entry.get(key) for key in ("size", "inode", "rank")),
        (entry.get("mtime_ns"), entry.get("ctime_ns")),
    )
    sound = all(type(number) is int and number >= 0 for number in counts) and all(type(time) is int for time in times)
    if not sound or not isinstance(to, str):
        return "the host describes it wrongly"
    if not is_inside(to):
        return "its path leads out of the folder that it is fetched into"
    if link is not None:
        return None if isinstance(link, str) and stays_inside(to, link) else "a link that leads out"
    if not isinstance(path, str) or not is_inside(path, private=True):
        return "the host names no file of the run"
    first, _, rest = path.partition("/")
    return None if path in _RECORDS or (first in _FOLDERS and rest) else "the host names no file of the run"


def is_inside(path: str, *, private: bool = False) -> bool:
    """A relative path of plain names, none of which leads upwards, and not our own folder unless `private`."""
    parts = path.split("/")
    if {"", ".", ".."} & set(parts) or "\0" in path:
        return False
    return private or _folded(parts[0]) != PRIVATE


def looks_secret(path: str) -> bool:
    """Return whether the name of a file, or of a folder that it lies in, is one of those that keys and passwords have."""
    *folders, name = path.split("/")
    return bool(_SECRETS.fullmatch(name)) or not _SECRET_FOLDERS.isdisjoint(folders)


def stays_inside(link: str, target: str) -> bool:
    """Return whether a link at `link` to `target` leads to something below the destination, whatever other links are there.

    `..` may only come first: behind a name it means the parent of where that name leads, which may be a link too.
    """
    if not target or target.startswith("/") or "\0" in target:
        return False
    parts = [part for part in target.split("/") if part not in ("", ".")]
    upwards = len(list(itertools.takewhile(lambda part: part == "..", parts)))
    return upwards <= link.count("/") and ".." not in parts[upwards:]


def select(items: Iterable[Item], only: Sequence[str]) -> tuple[Item, ...]:
    """Those that a glob of `only` names, in the syntax of .gitignore: `*.ckpt` anywhere, `checkpoints/`,
    `logs/**/x`.
    """
    if not only:
        return tuple(items)
    import pathspec

    wanted = pathspec.GitIgnoreSpec.from_lines(only)
    return tuple(item for item in items if wanted.match_file(item.to))


def without_clashes(items: Sequence[Item], *, ignores_case: bool) -> tuple[tuple[Item, ...], tuple[Left, ...]]:
    """On a disk that takes `A` and `a` for one name, only the first of such files can come."""
    seen: dict[str, str] = {}
    kept, left = [], []
    for item in items:
        key = _folded(item.to) if ignores_case else item.to
        if key in seen:
            left.append(Left(item.to, f"this disk does not tell its name from {seen[key]}"))
        else:
            seen[key] = item.to
            kept.append(item)
    return tuple(kept), tuple(left)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def groups(items: Iterable[Item]) -> list[list[Item]]:
    """The transfers, in order: small and precious first, then what fits together.

    Each costs some round trips, so that little things go together whatever their rank.
    """
    made: list[list[Item]] = []
    size = 0
    for item in sorted(items, key=lambda item: (item.rank, item.size, item.to)):
        fits = made and len(made[-1]) < GROUP_FILES and size + item.size <= GROUP_BYTES
        if fits and (made[-1][-1].rank == item.rank or size + item.size <= SMALL_GROUP_BYTES):
            made[-1].append(item)
            size += item.size
        else:
            made.append([item])
            size = item.size
    return made
