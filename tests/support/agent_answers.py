"""Answers as a sound agent gives them, for fakes that stand in its place."""

from __future__ import annotations

from typing import Any


def record(run: str = "train-7f3k", **changes: Any) -> dict[str, Any]:
    """A RunRecord."""
    return {
        "id": run, "name": "train", "project": "vision", "owner": "ada", "script": "train.py", "args": [],
        "command": ["python", "train.py"], "git": None, "state": "running", "reason": None, "message": None, "next": None,
        "exit_code": None, "attempt": 1, "attempts": [], "resumed": None, "retries": {"asked": 0, "used": 0}, "created": 1.0,
        "since": 1.0, "started": 1.0, "ended": None, "service": None, "ports": [], "gpus": [], "gpus_asked": 0, "waiting": None,
        "runtime": "bare", "image": None, "digest": None, "environment": None, "disk": None, "log_bytes": 0, "progress": None,
        "metrics": {}, "checkpoints": None, "live": True, "stop_requested": False, "kill_in": None, "saving": False,
        "stopped": None, "fetched": None, "notes": [], "host_id": "5f3c", "boot_id": "boot", **changes,
    }  # fmt: skip


def listing(**changes: Any) -> dict[str, Any]:
    """The answer to `ps`."""
    disk = {"free": 10**12, "total": 2 * 10**12}
    about = {"now": 1.0, "host_id": "5f3c", "hostname": "box", "boot_id": "boot", "disk": disk}
    return {**about, "runs": [], "ledgers": {}, "queue": [], "gpus": [], "others": [], **changes}


SHA = "a" * 64
RUN = "train-7f3k"


def sound(run: str = RUN, **changes: Any) -> dict[str, Any]:
    """An answer of each verb about one run that has ended, as full as they come."""
    best = {
        "path": "a.ckpt", "epoch": 1, "step": 10, "value": 0.5, "size": 7, "t": 5.0, "attempt": 1, "monitor": "val_loss",
        "mode": "min", "sha256": SHA,
    }  # fmt: skip
    gpu = {"index": 0, "uuid": "GPU-a", "name": "A100", "memory": 80 << 30}
    earlier = {
        "attempt": 1,
        "state": "failed",
        "reason": "exit",
        "exit_code": 1,
        "message": None,
        "started": 1.0,
        "ended": 2.0,
    }
    told = record(
        run, state="failed", reason="exit", exit_code=3, live=False, ended=9.0, attempt=2, attempts=[earlier], gpus=[gpu],
        gpus_asked=1, disk=10, progress={"epoch": 1, "step": 10, "attempt": 2}, metrics={"val_loss": 0.5}, resumed=best,
        checkpoints={"count": 1, "best": best, "last": best}, notes=["a note"], image="pytorch:1", runtime="docker",
        digest="sha256:" + SHA, environment={"torch": "2.8.0", "python": "3.11"}, message="it failed", next="look",
        git={"commit": SHA[:40], "branch": "main", "dirty": True}, stopped={"checkpoint": "a.ckpt", "attempt": 2}, **changes,
    )  # fmt: skip
    job = {
        "schema": 1, "id": run, "token": "t0", "name": "train", "owner": "ada", "created": 1.0, "command": ["python", "train.py"],
        "project": {"name": "vision", "root": "/home/ada/vision"}, "script": "train.py", "args": [], "env": [], "git": None,
        "resources": {"gpus": 0, "memory": None, "cpus": None, "shm": None}, "image": None, "dependencies": None, "ports": [],
        "service": None, "max_duration": None, "host": {"runtime": "docker"}, "user": None, "keep_caps": [], "mounts": [],
    }  # fmt: skip
    ledgers = {run: {"host_id": "5f3c", "from": 0, "to": 99, "lines": [{**best, "complete": True, "best": True}]}}
    facts = {
        "python": {"path": "/usr/bin/python3", "version": "3.11.2"}, "home": "/home/ada", "user": "ada", "hostname": "box",
        "host_id": "5f3c", "root": "/home/ada/.gpurun", "container": False, "cpus": 8, "memory": 1 << 36, "clock": 1.0,
        "gpus": [gpu], "driver": "550.1", "gpus_error": None, "engine_error": None, "machine_id": "m", "boot_id": "boot",
        "engine": {
            "argv": ["docker"], "version": "27.0", "root": "/var/lib/docker", "rootless": False, "userns": False,
            "selinux": False, "toolkit": True,
        },
        "disk": {"free": 10**12, "total": 2 * 10**12, "inodes": 10**6, "inodes_free": 10**6}, "runtimes": ["docker", "bare"],
    }  # fmt: skip
    file = {
        "path": "workspace/a.csv", "as": "a.csv", "size": 1, "mtime_ns": 1, "ctime_ns": 1, "inode": 1, "link": None, "rank": 1,
        "grows": False, "writing": None,
    }  # fmt: skip
    place = {**best, "folder": "/home/ada", "name": "a.ckpt"}
    return {
        "prepare": {"created": True, "run": told, "snapshot": "/x/snapshot", "link_dest": [], "facts": facts},
        "start": {"run": told},
        "resume": {"run": told},
        "logs": {"run": told},
        "ps": listing(
            runs=[told], ledgers=ledgers, queue=["other-1111"], gpus=[{**gpu, "used_by": f"run {run}", "run": run}],
            others=[{"run": "other-1111", "owner": "bob", "gpus": [0]}],
        ),
        "status": {
            "run": told, "job": job, "events": [{"t": 1.0, "event": "created"}], "prepare_tail": "", "log_tail": "said\n",
            "traceback": None, "path": "/x/workspace", "environment": {"torch": "2.8.0"}, "prepared": {}, "ledgers": ledgers,
        },
        "wait": {"runs": [told], "ledgers": ledgers},
        "stop": {"runs": [told]},
        "rm": {"removed": [run], "freed": 7, "left": []},
        "unfetched": {
            "runs": [told], "ledgers": ledgers,
            "held": {run: {"live": False, "container": False, "files": 1, "bytes": 1, "stamp": "s", "elsewhere": None}},
        },
        "shell": {"argv": ["true"], "path": "/x/workspace"},
        "outputs": {
            "run": run, "record": told, "ledgers": ledgers, "root": "/x", "live": False, "now": 1.0, "files": [file],
            "skipped": [{"path": "b", "why": "a socket", "lost": False}], "caches": [".cache/"], "bytes": 1, "container": False,
            "stamp": "s",
        },
        "hash": {
            "hashes": {
                "workspace/a.csv": {
                    "sha256": SHA, "size": 1, "mtime_ns": 1, "inode": 1, "whole": True, "cut": False, "why": None, "gone": False,
                    "prefix_sha256": None,
                }
            }
        },
        "fetched": {"counts": True},
        "checkpoint": {
            "run": told, "ledgers": ledgers, "count": 1,
            "checkpoint": {**place, "as": "a.ckpt", "mtime_ns": 1, "ctime_ns": 1, "inode": 1},
        },
        "migrate": {"run": told, "job": job, "root": "/x", "snapshot": [["a.py", "f", 1, 1, ""]], "checkpoint": place},
        "data": {"path": "/x/data/sets", "empty": True, "free": 10**12},
        "data_folders": {
            "folders": [
                {
                    "name": "sets", "path": "/x/data/sets", "bytes": 1200, "files": 3, "counted": True, "began": 1.0, "pushed": 2.0,
                    "used_by": [],
                }
            ],
            "freed": 0, "left": [],
        },
        "facts": facts,
        "check": {
            "facts": facts, "rsync": "3.2.7", "toolkit": "1.17.8", "engine_free": 10**12, "ends_at_logout": False,
            "pythons": [{"path": "/usr/bin/python3", "version": "3.11.2", "torch": None}],
            "disks": [{"path": "/x", "type": "ext4", "free": 10**12, "total": 10**12}],
            "home": {"type": "ext4", "machines": 1}, "echo": {"port": 9, "socket": "/x/s"},
        },
        "leave": {
            "revoked": 0, "removed": [run], "freed": 0, "left": [], "kept": [], "foreign": [], "shared": False,
            "data": {"imagenet": {"files": 1, "bytes": 1, "stamp": "1.1.1"}},
        },
        "warm": {"name": "gpurun", "started": True, "engine": True},
        "tunnel": {"probe": 9, "runs": [told], "listeners": [{"name": "port 8080", "socket": None, "port": 9, "token": None}]},
    }  # fmt: skip
