"""What a submit sends and runs, in words: the notes on the way, the questions about size, and `--dry-run`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from gpurun.cli import describe, output
from gpurun.job import ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpurun.agent.schema.answers import PrepareAnswer
    from gpurun.agent.schema.job import JobSpec
    from gpurun.commands.submit import Plan
    from gpurun.config.load import Loaded
    from gpurun.job.files import FileList
    from gpurun.job.ignore import LeftOut

WARN_FROM = 500_000_000  # bytes of a project
ASK_FROM = 1_000_000_000
LISTED = 40  # files, as many as --dry-run lists one by one


def approve(plan: Plan, *, yes: bool) -> None:
    """A project that is too large is more often a data folder that nobody meant to send."""
    total = plan.files.bytes
    if total <= WARN_FROM:
        return
    largest = "\n".join(f"  {output.size(size):>8}  {path}" for path, size in plan.files.largest(5))
    output.warn(f"the project has {output.size(total)}; the largest in it:\n{largest}")
    if total > ASK_FROM:
        output.next_steps(("gpurun push DIR HOST:NAME", "for data; .gpurunignore keeps files here"))
        question = f"Send {output.size(total)} to the host?"
        output.confirm(question, yes=yes, otherwise="add -y to send it, or name what stays in .gpurunignore")


def tell(plan: Plan, host: str, *, yes: bool) -> None:
    approve(plan, yes=yes)
    files = plan.files
    git = plan.job.get("git")
    state = " (with uncommitted changes)" if git and git.get("dirty") else ""
    sha = git.get("commit") if git else None
    commit = f", commit {sha[:8]}{state}" if sha else ""
    output.note(
        f"{plan.job['project']['name']} to {host}: {output.plural(files.count, 'file')}, {output.size(files.bytes)}{commit}"
    )
    if not plan.job.get("service"):
        output.note(f"  starts {shlex.join(plan.job['command'])}")
    if files.left_out:
        output.note(f"  stays here: {left_out(files.left_out)}")
    for line in plan.notes:
        output.note(f"  {line}")


def left_out(items: Sequence[LeftOut]) -> str:
    """`.venv/ (virtual environment), 2 more ignored by git`: the rest of each reason is counted, up to 20 secrets are named."""
    by_reason: dict[str, list[LeftOut]] = {}
    folders = tuple(item.path for item in items if item.path.endswith("/"))
    for item in items:
        if any(item.path.startswith(folder) and item.path != folder for folder in folders):
            continue
        by_reason.setdefault(item.why, []).append(item)
    parts = []
    for why, group in by_reason.items():
        most = 20 if why == ignore.SECRET else 3  # a job may miss a file that was taken for a secret
        names = [item.path for item in group[:most]] + ([f"{len(group) - most} more"] if len(group) > most else [])
        parts.append(f"{', '.join(names)} ({why})")
    return "; ".join(parts)


def tell_prepared(prepared: PrepareAnswer) -> None:
    record = prepared["run"]
    asked = record["gpus_asked"] or "no"
    gpus = output.plural(asked, "GPU") if isinstance(asked, int) else "no GPU" if asked == "no" else f"{asked} GPUs"
    image = f", image {record['image']}" if record.get("image") else ""
    output.note(f"  runs {describe.runtime(record)}, {gpus}{image}")
    for line in record.get("notes") or []:
        output.warn(line)


def show(loaded: Loaded, *, as_json: bool) -> int:
    from gpurun.commands.submit import make_plan

    plan = make_plan(loaded)
    shown = {
        "host": loaded.host.name if loaded.host else None,
        "project": {"root": str(loaded.project.root), "name": loaded.project.name},
        "command": plan.job["command"],
        "job": plan.job,
        "env": sorted(loaded.env),
        "sources": dict(loaded.sources),
        "files": {
            "count": plan.files.count,
            "bytes": plan.files.bytes,
            "largest": [{"path": path, "bytes": size} for path, size in plan.files.largest(10)],
            "all": [{"path": path, "bytes": size} for path, size in plan.files.listed()],
            "left_out": [{"path": i.path, "why": i.why, "files": i.files, "bytes": i.size} for i in plan.files.left_out],
        },
        "notes": list(plan.notes),
    }  # fmt: skip
    if as_json:
        output.json(shown)
        return 0
    for name, text in _plan_lines(plan, loaded):
        output.out(output.labelled(name, text, 11, output.BOLD))
    return 0


def _image(job: JobSpec) -> str:
    base = job["base"]
    return job["image"] or (f"{base['name']}, on {base['reference']}" if base else f"built from {job['dockerfile']}")


def _files(files: FileList) -> list[str]:
    """All files, or of many the largest and how the rest is to be had."""
    few = files.count <= LISTED
    shown = sorted(files.listed(), key=lambda file: -file[1]) if few else files.largest(5)
    lines = [f"{output.size(size):>8}  {path}" for path, size in shown]
    return lines if few else [*lines, "          the largest of them; all: gpurun submit ... --dry-run --json"]


def _plan_lines(plan: Plan, loaded: Loaded) -> list[tuple[str, str]]:
    job, files, wanted = plan.job, plan.files, plan.job["resources"]
    limits = {
        "memory": wanted["memory"] and output.size(wanted["memory"]),
        "cpus": wanted["cpus"],
        "shm": wanted["shm"] and output.size(wanted["shm"]),
        "ends after": job["max_duration"] and output.duration(job["max_duration"]),
        "retries": job["retries"] or None,
    }
    found = job["dependencies"]
    lines = [
        ("host", loaded.host.name if loaded.host else "-"),
        ("project", f"{job['project']['name']}  {loaded.project.root}"),
        ("command", shlex.join(job["command"])),
        ("gpus", str(wanted["gpus"])),
        ("limits", ", ".join(f"{key} {value}" for key, value in limits.items() if value) or "none"),
        ("runtime", job["runtime"] or "what the host has (it was not asked)"),
        ("image", describe.image(_image(job))),
        ("installs", f"{found['kind']} {found['file']}" if found else "nothing"),
        ("env", ", ".join(job["env"]) or "-"),
    ]
    lines += [
        ("mount", f"{m['source']} at {m['target']}{' (read-only)' if m['readonly'] else ''}") for m in job["mounts"]
    ]
    lines.append(("sends", f"{output.plural(files.count, 'file')}, {output.size(files.bytes)}"))
    lines += [("", text) for text in _files(files)]
    if files.left_out:
        lines.append(("stays here", left_out(files.left_out)))
    lines += [("note", text) for text in plan.notes]
    return lines
