"""Remember submits that have begun and not ended: repeating a killed submit resumes it.

A file a submit, locked by its process for as long as that lives. A free lock is a process that died, or a submit
that broke off: the same submit (same job, same files) takes over its id and token, and the host sees one run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from gpurun import locked
from gpurun.agent import clocks
from gpurun.store import run_ids

if TYPE_CHECKING:
    from gpurun.agent.schema.job import JobSpec
    from gpurun.agent.schema.run import Manifest, Mark
    from gpurun.secret import Secret

# After this time without a start the agent ends a run as failed(sync); see the table in agent/lifecycle/reconcile.py.
FORGET_AFTER = 3600.0

# What differs between two submits of the same thing.
_OF_ONE_SUBMIT = ("id", "token", "created", "fetch_hint")


class _Kept(TypedDict, total=False):
    """What the file of a submit holds. 0.1.0 wrote no `began`."""

    fingerprint: str
    began: Mark
    id: str
    token: str
    created: float
    fetch_hint: str


@dataclass(frozen=True)
class PendingSubmit:
    """A job under the id and token that it goes by, ours alone until `settle` or the end of this process."""

    job: JobSpec
    taken_over: bool  # an earlier process began it
    _file: Path
    _lock: int
    _released: list[bool] = field(default_factory=list, compare=False)  # holds something once it is

    def settle(self) -> None:
        """The host has the run, or will never have it: nothing is left to take over."""
        self._file.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Leave it to whoever repeats the submit. Once: the descriptor's number may be another file's afterwards."""
        if self._released:
            return
        self._released.append(True)
        with contextlib.suppress(OSError):
            os.close(self._lock)


def take(
    job: JobSpec,
    manifest: Manifest,
    host: str,
    env: Mapping[str, Secret] | None = None,
    *,
    is_taken: Callable[[str], bool] = lambda run_id: False,
    now: Mark | None = None,
) -> PendingSubmit:
    """Claim `job`: under the id of an equal submit that nobody works on any more, else under its own.

    Equal is one with the same job, files, host and values of `env`, which are not in the job. An id that `is_taken`, or that
    another submit has, is drawn anew.
    """
    now = clocks.mark() if now is None else now
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    same = _fingerprint(job, manifest, host, env or {})
    with (
        locked.state()
    ):  # to look at a claim is to hold it for a moment: another submit must not take it for a live one
        for file, lock, earlier in _abandoned(folder, now):
            if earlier["fingerprint"] == same:
                return PendingSubmit(_as_begun(job, earlier), True, file, lock)
            os.close(lock)
        return _begin(folder, job, same, is_taken, now)


def _as_begun(job: JobSpec, earlier: _Kept) -> JobSpec:
    return {
        **job,
        "id": earlier["id"],
        "token": earlier["token"],
        "created": earlier["created"],
        "fetch_hint": run_ids.fetch_hint(earlier["id"]),
    }


def _begin(folder: Path, job: JobSpec, same: str, is_taken: Callable[[str], bool], now: Mark) -> PendingSubmit:
    while is_taken(job["id"]) or (folder / f"{job['id']}.json").exists():
        job = run_ids.under_new_id(job)
    file = folder / f"{job['id']}.json"
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    kept: _Kept = {
        "fingerprint": same,
        "began": now,
        "id": job["id"],
        "token": job["token"],
        "created": job["created"],
        "fetch_hint": job["fetch_hint"],
    }
    os.write(lock, json.dumps(kept).encode())
    os.fsync(lock)  # one that a power cut has emptied would let the repeated submit begin a second run
    return PendingSubmit(job, False, file, lock)


def _abandoned(folder: Path, now: Mark) -> Iterator[tuple[Path, int, _Kept]]:
    """Claims that no living process holds, each with its lock, which is now ours; old ones are removed."""
    for file in sorted(folder.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            lock = os.open(file, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                earlier: _Kept = json.loads(file.read_bytes())
                # An earlier gpurun kept the time alone that the job was made at. A clock that is set makes no claim older.
                made: Mark = {"t": earlier["created"] or 0.0}
                old = clocks.since(earlier.get("began") or made, now) > FORGET_AFTER
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                os.close(lock)
                continue
            if old:
                file.unlink(missing_ok=True)
                os.close(lock)
                continue
            yield file, lock, earlier


def _fingerprint(job: JobSpec, manifest: Manifest, host: str, env: Mapping[str, Secret]) -> str:
    """Equal for two submits of the same job with the same files and environment to the same host."""
    asked = {key: value for key, value in job.items() if key not in _OF_ONE_SUBMIT}
    values = {name: value.reveal() for name, value in env.items()}
    return hashlib.sha256(json.dumps([asked, manifest, host, values], sort_keys=True).encode()).hexdigest()


def _folder() -> Path:
    import platformdirs

    return platformdirs.user_data_path("gpurun") / "submits"
