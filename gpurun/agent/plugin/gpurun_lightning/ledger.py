"""The checkpoint ledger: a line for each checkpoint that is whole, by a thread that looks for the files themselves.

So it takes in what no callback announces. A line is written when a file has been hashed and held still meanwhile, and never
before: a kill in the middle of a save leaves no line. What a callback knows of a file (metric, best, last) is asked for then.
"""

import atexit
import os
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

from . import checkpoint_file, lines
from .checkpoint_file import Stamp
from .say import guarded

SUFFIX = ".ckpt"
SOON = 1.0  # seconds between two looks while something was saved
SELDOM = 60.0  # and else: for what was saved past every hook
QUIET = 1.0  # seconds that a file is left alone after its last change
# A workspace may hold a data set of a million files: looking for checkpoints takes 1/20 of the time at most.
SHARE = 20
PRUNED = {"__pycache__", "node_modules"}
_GAPS = "the list of checkpoints has gaps"

Announced = Dict[str, Dict[str, Any]]  # real path -> {"monitor", "mode", "value", "best", "last"}
UNANNOUNCED = {"monitor": None, "mode": None, "value": None, "best": False, "last": False}


class Ledger:
    """Of this process. `announced` tells what the callbacks know, and `folders` where else they save."""

    def __init__(
        self,
        path: str,
        workspace: str,
        attempt: int,
        since: float,
        announced: Callable[[], Announced] = dict,
        folders: Callable[[], List[str]] = list,
    ) -> None:
        self.path = path
        self.workspace = workspace
        self.attempt = attempt
        self.since = since  # unix seconds: older files came with the project
        self.announced = announced
        self.folders = folders
        self.entries: Dict[str, Dict[str, Any]] = {}  # by path as in the ledger
        self.stamps: Dict[str, Stamp] = {}
        self.lock = threading.Lock()
        self.wake = threading.Event()
        self.pending = 0.0  # looks are frequent until then, monotonic
        self.owner = os.getpid()
        self._take_up()

    def _take_up(self) -> None:
        """What earlier attempts wrote."""
        for line in lines.read(self.path):
            name = line.get("path")
            if isinstance(name, str):
                self.entries[name] = line
        self.entries = {name: line for name, line in self.entries.items() if not line.get("removed")}

    def start(self) -> None:
        threading.Thread(target=self._run, name="gpurun-ledger", daemon=True).start()
        atexit.register(self.close)

    def expect(self) -> None:
        """Something is being saved, or was just now."""
        self.pending = time.monotonic() + 10 * SOON
        self.wake.set()

    def _run(self) -> None:
        while True:
            rest = SOON if time.monotonic() < self.pending else SELDOM
            self.wake.wait(rest)
            self.wake.clear()
            time.sleep(min(rest, SOON))
            began = time.monotonic()
            self._guarded_look()
            time.sleep((time.monotonic() - began) * SHARE)

    @guarded(_GAPS)
    def close(self) -> None:
        """At the end of the process, when nothing is written any more. A forked child has no part in it."""
        if os.getpid() == self.owner:
            self.look(quiet=0.0)

    @guarded(_GAPS)
    def _guarded_look(self) -> None:
        self.look()

    def look(self, quiet: float = QUIET) -> None:
        with self.lock:
            found = list(self._files())
            for path in found:
                if self.stamps.get(path) != checkpoint_file.stamp(path):
                    self._record(path, quiet)
            self._refresh(found)

    def record(self, path: str) -> Optional[Dict[str, Any]]:
        """Now: its writer is done with it. None when it is not whole."""
        with self.lock:
            self._record(path, 0.0)
            return self.entries.get(self._name(path))

    def _record(self, path: str, quiet: float) -> None:
        before = checkpoint_file.stamp(path)
        if before is None:
            return
        age = time.time() - before[2] / 1e9
        known = self.entries.get(self._name(path))
        if known is not None and (known.get("size"), known.get("mtime_ns")) == before[1:3]:
            self.stamps[path] = before
            return
        if known is None and before[2] / 1e9 < self.since:
            return
        if 0 <= age < quiet or not checkpoint_file.is_whole(path, age if quiet else checkpoint_file.QUIET + 1):
            self.pending = time.monotonic() + 10 * SOON
            return
        facts, sha = checkpoint_file.facts(path), checkpoint_file.sha256(path)
        if checkpoint_file.stamp(path) != before:
            return
        self.stamps[path] = before
        entry = {
            "path": self._name(path),
            **facts,
            **self.announced().get(os.path.realpath(path), UNANNOUNCED),
            "size": before[1],
            "sha256": sha,
            "mtime_ns": before[2],
            "complete": True,
        }
        self._write(entry)

    def _refresh(self, found: List[str]) -> None:
        """A better one was saved, or an older one removed: that changes what was written of others."""
        announced = self.announced()
        there = {self._name(path): path for path in found}
        for name, entry in list(self.entries.items()):
            path = os.path.join(self.workspace, name)
            if name not in there and not os.path.exists(path):
                lines.append(self.path, {"t": time.time(), "path": name, "removed": True})
                del self.entries[name]
                continue
            told = announced.get(os.path.realpath(path))
            if told is not None and any(entry.get(key) != value for key, value in told.items()):
                stamp = checkpoint_file.stamp(path)
                if stamp is not None and stamp[1:3] == (entry.get("size"), entry.get("mtime_ns")):
                    self._write({**entry, **told})

    def _write(self, entry: Dict[str, Any]) -> None:
        entry = {**entry, "t": time.time(), "attempt": self.attempt}
        lines.append(self.path, entry)
        self.entries[entry["path"]] = entry

    def _name(self, path: str) -> str:
        relative = os.path.relpath(path, self.workspace)
        return path if relative.startswith(os.pardir) else relative

    def _files(self) -> Iterator[str]:
        seen = set()
        outside = [folder for folder in self.folders() if os.path.isabs(self._name(folder))]
        for root in [self.workspace, *outside]:
            for folder, folders, names in os.walk(root):
                folders[:] = [one for one in folders if not one.startswith(".") and one not in PRUNED]
                for name in names:
                    path = os.path.join(folder, name)
                    if name.endswith(SUFFIX) and path not in seen:
                        seen.add(path)
                        yield path
