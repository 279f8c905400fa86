"""Runs side by side: arguments, code, environment, results and metrics, from what is known here. No host is asked."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gpurun.agent import vocabulary as words
from gpurun.config.project import git
from gpurun.store import checkpoint_store, run_store
from gpurun.store.epochs import epoch
from gpurun.store.run_store import RunEntry

if TYPE_CHECKING:
    from gpurun.agent.schema.job import Git
    from gpurun.agent.schema.run import RunRecord

ARGUMENTS, CODE, ENVIRONMENT, RESULT, METRICS = "arguments", "code", "environment", "result", "metrics"
SECTIONS = (ARGUMENTS, CODE, ENVIRONMENT, RESULT, METRICS)
UNLIKE_FIRST = "unlike the first"
SAME_CODE = ("nothing", "no file that git tracks")
_VERSIONS = ("python", "torch", "cuda", "cudnn", "lightning", "driver")

Facts = Mapping[str, Mapping[str, object]]  # section -> name -> value; what is not known is None or not there

_OPTION = re.compile(r"--?[A-Za-z_][\w.-]*")
_OVERRIDE = re.compile(r"(?P<name>[+~]{0,2}[A-Za-z_][\w./@-]*)=(?P<value>.*)", re.DOTALL)  # as Hydra has them
_PATCHED = re.compile(rb'^diff --git .* "?b/(.*?)"?$', re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """One thing of every run, None where it is not known or not given."""

    section: str
    name: str
    values: tuple[Any, ...]

    @property
    def differs(self) -> bool:
        if self.name == UNLIKE_FIRST:
            return any(value not in (None, *SAME_CODE) for value in self.values)
        return any(value != self.values[0] for value in self.values[1:])


def compare(entries: Sequence[RunEntry]) -> list[Row]:
    """Each thing that one of the runs has, section by section."""
    return rows([facts(entry, entries[0]) for entry in entries])


def rows(told: Sequence[Facts]) -> list[Row]:
    found = []
    for section in SECTIONS:
        for name in dict.fromkeys(name for facts in told for name in facts[section]):
            values = tuple(facts[section].get(name) for facts in told)
            if any(value is not None for value in values):
                found.append(Row(section, name, values))
    return found


def facts(entry: RunEntry, first: RunEntry) -> Facts:
    record, job = entry.known, entry.known_job
    return {
        ARGUMENTS: arguments(job.get("args") or record.get("args") or []),
        CODE: _code(entry, first),
        ENVIRONMENT: _environment(entry, record),
        RESULT: _result(entry, record),
        METRICS: {name: v for name, v in (record.get("metrics") or {}).items() if checkpoint_store.is_number(v)},
    }


def arguments(args: Sequence[str]) -> dict[str, str]:
    """By name: `--lr 1e-3`, `--lr=1e-3`, Hydra's `lr=1e-3`; others by their place. One of several values has all of them."""
    found: dict[str, list[str]] = {}
    option: str | None = None  # whose values may follow
    places = 0
    for word in args:
        name, _, value = word.partition("=")
        override = _OVERRIDE.fullmatch(word)
        if _OPTION.fullmatch(name):
            option = None if "=" in word else name
            found.setdefault(name, []).extend([value] if "=" in word else [])
        elif override and not (option and not found[option]):
            found.setdefault(override["name"], []).append(override["value"])
        elif option is not None:
            found[option].append(word)
        else:
            places += 1
            found[str(places)] = [word]
    return {name: " ".join(values) if values else "yes" for name, values in found.items()}


def _code(entry: RunEntry, first: RunEntry) -> dict[str, object]:
    facts = _git(entry)
    commit = str(facts["commit"])[:10] if facts.get("commit") else None
    return {
        "script": entry.known_job.get("script") if entry.job else entry.known.get("script"),
        "commit": commit,
        "uncommitted changes": ("yes" if facts.get("dirty") else "no") if commit else None,
        "files as sent": str(entry.manifest["digest"])[:10] if entry.manifest else None,
        UNLIKE_FIRST: None if entry.id == first.id else difference(first, entry),
    }


def _git(entry: RunEntry) -> Git:
    return entry.known_job.get("git") or entry.known.get("git") or cast("Git", {})


def difference(one: RunEntry, other: RunEntry) -> str | None:
    """The files of git in which their code differs; `nothing` when it does not, None when that is not known."""
    if one.manifest and other.manifest and one.manifest["digest"] == other.manifest["digest"]:
        return SAME_CODE[0]
    here, there = _git(one), _git(other)
    if not here.get("commit") or not there.get("commit"):
        return None
    edits = edited(run_store.patch(one.id)), edited(run_store.patch(other.id))
    if any(facts.get("dirty") and entry.job is None for entry, facts in ((one, here), (other, there))):
        return None  # submitted from elsewhere: the patch is not here
    files = {file for file in {**edits[0], **edits[1]} if edits[0].get(file) != edits[1].get(file)}
    if here["commit"] != there["commit"]:
        committed = _committed(other, str(here["commit"]), str(there["commit"]))
        if committed is None:
            return None
        files |= committed
    return ", ".join(sorted(files)) if files else SAME_CODE[1]


def edited(patch: bytes | None) -> dict[str, str]:
    """The files of a patch, each with the digest of what is changed in it."""
    _, *parts = _PATCHED.split(patch or b"")
    changes = zip(parts[::2], parts[1::2], strict=True)
    return {os.fsdecode(name): hashlib.sha256(change).hexdigest() for name, change in changes}


def _committed(entry: RunEntry, one: str, other: str) -> set[str] | None:
    """The files that differ between two commits; None when the repository here does not have both."""
    root = Path(entry.project_root or "/nowhere")
    if not root.is_dir() or not all(re.fullmatch(r"[0-9a-f]{40,64}", commit) for commit in (one, other)):
        return None
    answer = git(root, "diff", "--name-only", "--no-renames", "-z", one, other, "--", ".")
    return {os.fsdecode(name) for name in answer.stdout.split(b"\0") if name} if answer else None


def _environment(entry: RunEntry, record: RunRecord) -> dict[str, object]:
    names = [str(gpu.get("name") or "GPU") for gpu in record.get("gpus") or []]
    about: Mapping[str, object] = record.get("environment") or {}
    gpus = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    return {
        "host": entry.host,
        "gpus": gpus or ("none" if record.get("gpus_asked") == 0 else None),
        "runtime": record.get("runtime"),
        "image": record.get("image"),
        "digest": record.get("digest"),
        **{name: about.get(name) for name in _VERSIONS},
    }


def _result(entry: RunEntry, record: RunRecord) -> dict[str, object]:
    told = record.get("progress") if isinstance(record.get("progress"), dict) else {}
    saved = checkpoint_store.saved(entry.id, entry.host, record.get("checkpoints"))
    best: Mapping[str, object] = saved.best or {}
    seconds = words.seconds_ran(record)
    return {
        "state": entry.state.replace("_", " "),
        "reason": record.get("reason") if entry.state not in (words.SUCCEEDED, words.RUNNING) else None,
        "exit code": record.get("exit_code"),
        "attempts": record.get("attempt"),
        "seconds": None if seconds is None else round(seconds, 1),
        "epoch": epoch(told or {}),
        "step": (told or {}).get("step"),
        "checkpoints": saved.count if record.get("checkpoints") or saved.count else None,
        "monitored": best.get("monitor"),
        "best value": best.get("value"),
        "best checkpoint": best.get("path"),
    }
