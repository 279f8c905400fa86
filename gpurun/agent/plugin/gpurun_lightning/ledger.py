"""Keep the checkpoint ledger: a line for each complete checkpoint, written by a thread that searches for the files.

So the ledger also has checkpoints that no callback announces. A line is written after a file was hashed and did not change
meanwhile, so a kill in the middle of a save leaves no line. The callbacks' data of the file (metric, best, last) is added.
"""

import atexit
import os
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

from . import checkpoint_file, lines
from .checkpoint_file import Stamp
from .job_log import guarded

SUFFIX = ".ckpt"
ACTIVE_INTERVAL = 1.0  # seconds between two scans while something is saved
IDLE_INTERVAL = 60.0  # seconds between two scans otherwise, for files that were saved without any hook
QUIET = 1.0  # seconds without a change before a file is read
# A workspace may hold a data set of a million files: scans take at most 1/20 of the time.
PAUSE_FACTOR = 20
PRUNED = {"__pycache__", "node_modules"}
_INCOMPLETE = "the list of checkpoints is incomplete"

Announced = Dict[str, Dict[str, Any]]  # real path -> {"monitor", "mode", "value", "best", "last"}
UNANNOUNCED = {"monitor": None, "mode": None, "value": None, "best": False, "last": False}


class Ledger:
    """The ledger of this process. `announced` returns the callbacks' data, `folders` the other folders that they save to."""

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
        self.since = since  # unix seconds; older files came with the project
        self.announced = announced
        self.folders = folders
        self.entries: Dict[str, Dict[str, Any]] = {}  # by the path in the ledger
        self.stamps: Dict[str, Stamp] = {}
        self.lock = threading.Lock()
        self.wake = threading.Event()
        self.pending = 0.0  # scans are frequent until then, monotonic
        self.owner = os.getpid()
        self._read_earlier()

    def _read_earlier(self) -> None:
        """Read the lines of earlier attempts."""
        for line in lines.read(self.path):
            name = line.get("path")
            if isinstance(name, str):
                self.entries[name] = line
        self.entries = {name: line for name, line in self.entries.items() if not line.get("removed")}

    def start(self) -> None:
        threading.Thread(target=self._run, name="gpurun-ledger", daemon=True).start()
        atexit.register(self.close)

    def expect(self) -> None:
        """Scan frequently for a while, because something is being saved or was just saved."""
        self.pending = time.monotonic() + 10 * ACTIVE_INTERVAL
        self.wake.set()

    def _run(self) -> None:
        while True:
            interval = ACTIVE_INTERVAL if time.monotonic() < self.pending else IDLE_INTERVAL
            self.wake.wait(interval)
            self.wake.clear()
            time.sleep(min(interval, ACTIVE_INTERVAL))
            started = time.monotonic()
            self._guarded_scan()
            time.sleep((time.monotonic() - started) * PAUSE_FACTOR)

    @guarded(_INCOMPLETE)
    def close(self) -> None:
        """Scan once more at the end of the process, when nothing is written any more; not in a forked child."""
        if os.getpid() == self.owner:
            self.scan(quiet=0.0)

    @guarded(_INCOMPLETE)
    def _guarded_scan(self) -> None:
        self.scan()

    def scan(self, quiet: float = QUIET) -> None:
        with self.lock:
            paths = list(self._files())
            for path in paths:
                if self.stamps.get(path) != checkpoint_file.stamp(path):
                    self._record(path, quiet)
            self._refresh(paths)

    def record(self, path: str) -> Optional[Dict[str, Any]]:
        """Add a file whose writer has finished, and return its entry; None when the file is incomplete."""
        with self.lock:
            self._record(path, 0.0)
            return self.entries.get(self._name(path))

    def _record(self, path: str, quiet: float) -> None:
        before = checkpoint_file.stamp(path)
        if before is None:
            return
        age = time.time() - before[2] / 1e9
        entered = self.entries.get(self._name(path))
        if entered is not None and (entered.get("size"), entered.get("mtime_ns")) == before[1:3]:
            self.stamps[path] = before
            return
        if entered is None and before[2] / 1e9 < self.since:
            return
        if 0 <= age < quiet or not checkpoint_file.is_complete(path, age if quiet else checkpoint_file.QUIET + 1):
            self.pending = time.monotonic() + 10 * ACTIVE_INTERVAL
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

    def _refresh(self, paths: List[str]) -> None:
        """Update the other entries: a new checkpoint may be the best or last one now, and old ones may be removed."""
        announced = self.announced()
        names = {self._name(path) for path in paths}
        for name, entry in list(self.entries.items()):
            path = os.path.join(self.workspace, name)
            if name not in names and not os.path.exists(path):
                lines.append(self.path, {"t": time.time(), "path": name, "removed": True})
                del self.entries[name]
                continue
            data = announced.get(os.path.realpath(path))
            if data is not None and any(entry.get(key) != value for key, value in data.items()):
                stamp = checkpoint_file.stamp(path)
                if stamp is not None and stamp[1:3] == (entry.get("size"), entry.get("mtime_ns")):
                    self._write({**entry, **data})

    def _write(self, entry: Dict[str, Any]) -> None:
        entry = {**entry, "t": time.time(), "attempt": self.attempt}
        lines.append(self.path, entry)
        self.entries[entry["path"]] = entry

    def _name(self, path: str) -> str:
        relative = os.path.relpath(path, self.workspace)
        return path if relative.startswith(os.pardir) else relative

    def _files(self) -> Iterator[str]:
        yielded = set()
        outside = [folder for folder in self.folders() if os.path.isabs(self._name(folder))]
        for root in [self.workspace, *outside]:
            for folder, folders, names in os.walk(root):
                folders[:] = [each for each in folders if not each.startswith(".") and each not in PRUNED]
                for name in names:
                    path = os.path.join(folder, name)
                    if name.endswith(SUFFIX) and path not in yielded:
                        yielded.add(path)
                        yield path
