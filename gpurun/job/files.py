"""Which of a project's files travel.

In a git repository: what git tracks or would track (`git ls-files`), files that were deleted left out, submodules and
nested clones opened. Elsewhere, and where git fails: a walk that honours `.gitignore` at every level. On top, in both:
`.gpurunignore` at the root and the spec's `exclude` (the syntax of `.gitignore`; `!` brings back what git ignores).
What git does not track stays out by itself when it is a repository's own folder, a virtual environment, a cache, a
likely secret, or what a fetch placed (gpurun/job/ignore.py). Folders of keys such as `.ssh` never travel.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gpurun.agent import manifest
from gpurun.agent.manifest import Entry
from gpurun.config.project import Project, git
from gpurun.errors import UsageError
from gpurun.job import ignore
from gpurun.job.ignore import LeftOut

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

    from gpurun.agent.schema.run import Manifest

IGNORE_FILE = ".gpurunignore"
BY_GIT = "ignored by git"
BY_US = f"ignored by {IGNORE_FILE}"
ENV_FILE = "env file: its variables travel apart"
_SHOWN = 5  # how many names a note lists
# What holds other people's files too; a folder in one of these may be a project.
_SHARED_FOLDERS = frozenset(
    [
        "/", "/dev", "/dev/shm", "/home", "/media", "/mnt", "/opt", "/private", "/private/tmp", "/run", "/srv", "/tmp", "/usr",
        "/usr/local", "/Users", "/var", "/var/lib", "/var/tmp",
    ]
)  # fmt: skip
_SYSTEM_FOLDERS = (
    "/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr/bin", "/usr/sbin", "/usr/lib",
    "/usr/lib32", "/usr/lib64", "/usr/libx32", "/usr/libexec", "/usr/include", "/usr/share", "/usr/local/bin",
    "/usr/local/sbin", "/usr/local/lib", "/usr/local/share", "/Applications", "/Library", "/System",
)  # fmt: skip

Raw = bytes  # in FileList, `bytes` is a number of them
# .gitignore files from the root down to a folder: (the folder's path with its "/", its patterns).
Levels = tuple[tuple[bytes, "GitIgnoreSpec"], ...]


@dataclass(frozen=True)
class FileList:
    """What travels: `entries` sorted by the bytes of their paths, relative to `root`. `notes` are for people."""

    root: Path
    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.entries)

    @cached_property
    def bytes(self) -> int:
        return sum(entry.size for entry in self.entries)

    def manifest(self) -> Manifest:
        """What the host checks the snapshot against (`start`)."""
        return manifest.make(list(self.entries))

    def has(self, path: str) -> bool:
        """Return whether the file `path`, relative to the root, travels."""
        return os.fsencode(path) in self._paths

    def why_not(self, path: str) -> str | None:
        """Why the file `path` stays out, in words; None when it travels."""
        if self.has(path):
            return None
        if not os.path.lexists(self.root / path):
            return "there is no such file"
        for item in self.left_out:
            if path == item.path or (item.path.endswith("/") and path.startswith(item.path)):
                return item.why
        return "git does not list it"

    def listed(self) -> list[tuple[str, int]]:
        """All files that travel, as (path, bytes)."""
        return [(os.fsdecode(entry.path), entry.size) for entry in self.entries]

    def largest(self, count: int) -> list[tuple[str, int]]:
        """The folders (with a `/`) and files that make up most of the size, as (path, bytes), the largest first."""
        return largest(self.entries, count)

    @cached_property
    def _paths(self) -> frozenset[Raw]:
        return frozenset(entry.path for entry in self.entries)


def list_files(project: Project, *, exclude: Sequence[str] = (), env_files: Iterable[Path] = ()) -> FileList:
    """List what travels of `project`; `env_files` never travel, even when git tracks them.

    Raise UsageError when the project's root is the home directory, `/` or another folder that is not the user's.
    """
    _refuse_what_is_not_a_project(project.root)
    lister = _Lister(project.root, exclude, env_files)
    if not (project.in_git and lister.take_repository(b"")):
        if project.in_git:
            lister.notes.append("git gave no list of files here; the .gitignore files were read instead")
        lister.walk(b"", (), ignored=False)
    return lister.result()


def _refuse_what_is_not_a_project(root: Path) -> None:
    name = _is_no_project(root)
    if name:
        what = f"the project would be {name}, with everything in it"
        raise UsageError(what, "put the script into a folder of its own, and submit it from there", where=root)


def _is_no_project(root: Path) -> str:
    """Return what `root` is, when it is not a folder of one project; also to root, who may write everywhere."""
    if Path.home().exists() and root.samefile(Path.home()):
        return "your home directory"
    real = root.resolve()
    if str(real) in _SHARED_FOLDERS:
        return str(real)
    if any(real.is_relative_to(folder) for folder in _SYSTEM_FOLDERS):
        return f"{real}, a folder of the system"
    if root.exists() and root.stat().st_uid != os.geteuid() and not os.access(root, os.W_OK):
        return f"{real}, which is not yours"
    return ""


def largest(entries: Sequence[Entry], count: int) -> list[tuple[str, int]]:
    """See FileList.largest. A folder that is large through one thing in it gives way to that thing."""
    sizes: Counter[bytes] = Counter()
    for entry in entries:
        sizes[entry.path] += entry.size
        cut = entry.path.rfind(b"/")
        while cut >= 0:
            sizes[entry.path[: cut + 1]] += entry.size
            cut = entry.path.rfind(b"/", 0, cut)
    heaviest: dict[bytes, int] = {}
    for path, size in sizes.items():
        parent = path.rstrip(b"/").rpartition(b"/")[0] + b"/"
        heaviest[parent] = max(heaviest.get(parent, 0), size)
    chosen: list[tuple[bytes, int]] = []
    for path, size in sizes.most_common():
        if len(chosen) == count:
            break
        if heaviest.get(path, 0) * 5 > size * 4 or any(
            path.startswith(above) for above, _ in chosen if above[-1:] == b"/"
        ):
            continue
        chosen.append((path, size))
    return [(os.fsdecode(path), size) for path, size in chosen]


class _Lister:
    """Collects entries while it goes through a project. Paths are bytes relative to the root, folders end in `/`."""

    def __init__(self, root: Path, exclude: Sequence[str], env_files: Iterable[Path]) -> None:
        self.path = root
        self.root = os.fsencode(root) + b"/"
        self.notes: list[str] = []
        self._entries: dict[bytes, Entry] = {}
        self._left_out: dict[bytes, str] = {}
        self._special: list[bytes] = []
        self._links_out: list[bytes] = []
        self._folders: dict[bytes, str | None] = {b"": None}
        self._our_folders: dict[bytes, bool] = {b"": False}
        self._placed: dict[bytes, ignore.Placed] = {}
        self._patterns = _patterns(root / IGNORE_FILE, exclude)
        self._brings_back = self._patterns is not None and any(p.include is False for p in self._patterns.patterns)
        self._env_files = {os.fsencode(os.path.relpath(file, root)) for file in env_files}

    def take_repository(self, prefix: bytes) -> bool:
        """Take what git lists in the repository at `prefix`; False when git fails or says that there is nothing."""
        folder = Path(os.fsdecode(self.root + prefix))
        listed = git(folder, "ls-files", "-z", "-t", "--cached", "--others", "--exclude-standard")
        if listed is None or (not listed.stdout and not prefix):
            return False  # nothing at all: an outer repository ignores this whole folder
        for line in dict.fromkeys(listed.stdout.split(b"\0")):
            if line:
                self._offer(prefix + line[2:], tracked=not line.startswith(b"?"))
        ignored = git(folder, "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory")
        for name in ignored.stdout.split(b"\0") if ignored else ():
            if name:
                self._ignored(prefix + name)
        return True

    def walk(self, prefix: bytes, levels: Levels, *, ignored: bool) -> None:
        """Take the folder at `prefix` without git. `ignored`: only what our own patterns bring back is taken."""
        patterns = _patterns(Path(os.fsdecode(self.root + prefix + b".gitignore")))
        if patterns is not None:
            levels = ((prefix, patterns), *levels)
        try:
            found = os.scandir(self.root + prefix)
        except OSError as error:
            self.notes.append(f"{os.fsdecode(prefix)} cannot be read ({error.strerror}) and stays out")
            return
        with found:
            items = [(item.name, item.is_dir(follow_symlinks=False)) for item in found]
        for name, is_folder in items:
            path = prefix + name + (b"/" if is_folder else b"")
            out = ignored or _git_would_ignore(path, levels)
            if out:
                self._ignored(path)
            elif not is_folder:
                self._offer(path, tracked=False)
            elif not self._folder_stays_out(path):
                self.walk(path, levels, ignored=False)

    def result(self) -> FileList:
        if self._special:
            self.notes.append(f"neither file nor link, so it stays out: {_names(self._special)}")
        if self._links_out:
            self.notes.append(
                f"leads out of the project or nowhere, and travels as the link that it is: {_names(self._links_out)}"
            )
        entries = tuple(sorted(self._entries.values()))
        return FileList(self.path, entries, ignore.measure(self.root, self._left_out), tuple(self.notes))

    def _offer(self, path: bytes, *, tracked: bool) -> None:
        """Take the file at `path` unless something keeps it out; a folder is a repository inside this one."""
        folder, _, name = path.rpartition(b"/")
        if path in self._env_files:
            self._left_out[path] = ENV_FILE
            return
        ours = self._our_verdict(path)
        if ours is None and not tracked:
            if folder and self._folder_stays_out(folder + b"/"):
                return
            reason = ignore.file_reason(name) or (ignore.FETCHED if self._was_fetched(path) else None)
            if reason is None and ignore.holds_private_key(self.root + path):
                reason = ignore.SECRET
            if reason:
                self._left_out[path] = reason
                return
        if not ours:
            self._take(path)

    def _was_fetched(self, path: bytes) -> bool:
        """Return whether a fetch into one of the folders above placed this file, and nobody has touched it since."""
        folder = path
        while folder:
            above = folder[:-1].rpartition(b"/")
            folder = above[0] + above[1]
            if folder not in self._placed:
                self._placed[folder] = ignore.fetched_into(self.root + folder)
            stamp = self._placed[folder].get(path[len(folder) :])
            if stamp is not None:
                return ignore.is_untouched(self.root + path, stamp)
        return False

    def _take(self, path: bytes) -> None:
        full = self.root + path
        keys = ignore.key_folder(path)
        if keys is not None:
            self._left_out[keys] = ignore.SECRET
            return
        try:
            info = os.lstat(full)
        except (FileNotFoundError, NotADirectoryError):
            return  # git still lists what was deleted
        if stat.S_ISDIR(info.st_mode):
            self._take_nested(path.rstrip(b"/") + b"/")
            return
        entry = manifest.entry_of(path, info, full)
        if entry is None:
            self._special.append(path)
            return
        if path.rpartition(b"/")[2] == b".git":
            return  # that of a worktree or a submodule; a sweeping `!*` does not bring it back either
        if entry.kind == "l" and _leads_out(entry, full):
            self._links_out.append(path)
        self._entries[path] = entry

    def _take_nested(self, path: bytes) -> None:
        if self._folder_stays_out(path):
            return
        if not os.listdir(self.root + path):
            self.notes.append(f"the submodule {os.fsdecode(path)} is empty; fetch it with: git submodule update --init")
        elif not (os.path.lexists(self.root + path + b".git") and self.take_repository(path)):
            self.walk(path, (), ignored=False)

    def _ignored(self, path: bytes) -> None:
        """`path` is ignored by git: it stays out, unless our own patterns bring it back."""
        folder = path.endswith(b"/")
        ours = self._our_verdict(path) if self._brings_back else None
        if ours is False and not folder:
            self._take(path)
        elif folder and self._brings_back and not ours and not self._folder_stays_out(path):
            self.walk(path, (), ignored=ours is None)
        else:
            self._note_ignored(path)

    def _note_ignored(self, path: bytes) -> None:
        name = path.rstrip(b"/").rpartition(b"/")[2]
        if path.endswith(b"/"):
            self._left_out[path] = ignore.folder_reason(name, self.root + path) or BY_GIT
        else:
            self._left_out[path] = ignore.file_reason(name) or BY_GIT

    def _folder_stays_out(self, folder: bytes) -> bool:
        """Return whether a folder that git does not track, or one above it, stays out by itself or by our own patterns."""
        if folder not in self._folders:
            above = folder[:-1].rpartition(b"/")
            if self._folder_stays_out(above[0] + above[1]):
                self._folders[folder] = ""
            else:
                reason = ignore.folder_reason(above[2], self.root + folder)
                # No pattern, such as a sweeping `!*`, brings back a repository's own folder.
                wanted = reason != ignore.VERSION_CONTROL and self._our_verdict(folder) is False
                self._folders[folder] = None if wanted else reason
                if reason and not wanted:
                    self._left_out[folder] = reason
        return self._folders[folder] is not None

    def _our_verdict(self, path: bytes) -> bool | None:
        """What .gpurunignore and `exclude` say of `path`: True out, False back in, None nothing."""
        if self._patterns is None:
            return None
        above = path.rstrip(b"/").rpartition(b"/")
        if self._our_folder_is_out(above[0] + above[1]):
            return True
        verdict = self._patterns.check_file(os.fsdecode(path)).include
        if verdict:
            self._left_out[path] = BY_US
        return verdict

    def _our_folder_is_out(self, folder: bytes) -> bool:
        if folder not in self._our_folders:
            self._our_folders[folder] = bool(self._our_verdict(folder))
        return self._our_folders[folder]


def _patterns(file: Path, more: Sequence[str] = ()) -> GitIgnoreSpec | None:
    """The patterns in `file` and `more`; None when there are none."""
    try:
        lines = os.fsdecode(file.read_bytes()).splitlines()
    except OSError:
        lines = []
    if not lines and not more:
        return None
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines([*lines, *more])


def _git_would_ignore(path: bytes, levels: Levels) -> bool:
    """What the .gitignore files say of `path`; the one nearest to it has the last word."""
    for prefix, patterns in levels:
        verdict = patterns.check_file(os.fsdecode(path[len(prefix) :])).include
        if verdict is not None:
            return verdict
    return False


def _leads_out(link: Entry, full: bytes) -> bool:
    """Return whether a link will point elsewhere on the host than here: absolute, out of the project, or at nothing."""
    inside = os.path.normpath(os.path.join(os.path.dirname(link.path), link.target))
    return link.target.startswith(b"/") or inside.split(b"/")[0] == b".." or not os.path.exists(full)


def _names(paths: Sequence[bytes]) -> str:
    shown = ", ".join(os.fsdecode(path) for path in paths[:_SHOWN])
    return shown + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")
