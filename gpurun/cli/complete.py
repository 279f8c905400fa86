"""What the shell offers after TAB. It reads this laptop's files only: a TAB must never wait for a host."""

from __future__ import annotations

from pathlib import Path


def runs(incomplete: str) -> list[tuple[str, str]]:
    """Run ids, newest first, with what they are."""
    from gpurun.store import run_store

    return [(run.id, f"{run.project} on {run.host}") for run in run_store.all_runs() if run.id.startswith(incomplete)]


def known_runs(incomplete: str) -> list[tuple[str, str]]:
    """Return `runs`, and the ids of removed runs after them, for verbs that answer without a host."""
    from gpurun.store import run_store

    gone = [(run.id, f"{run.project}, removed from {run.host}") for run in run_store.removed_runs()]
    return runs(incomplete) + [(run, what) for run, what in gone if run.startswith(incomplete)]


def hosts(incomplete: str) -> list[tuple[str, str]]:
    """Hosts that were added, and aliases of the SSH configuration that have no wildcard."""
    from gpurun.config import hosts as known
    from gpurun.ssh import config

    added = [(name, "added") for name in known.read().hosts]
    aliases = [(name, "SSH alias") for name in config.aliases() if name not in dict(added)]
    return [(name, why) for name, why in [*added, *aliases] if name.startswith(incomplete)]


def data(incomplete: str) -> list[tuple[str, str]]:
    """Names of data that hosts.toml knows, by `gpurun push` or by hand."""
    from gpurun.config import hosts as known

    found: dict[str, str] = {}
    for host in known.read().hosts.values():
        found.update(dict.fromkeys(set(host.data) - set(found), f"on {host.name}"))
    return [(name, why) for name, why in sorted(found.items()) if name.startswith(incomplete)]


def data_of_a_host(incomplete: str) -> list[tuple[str, str]]:
    """Return `data`, and behind `HOST:` the names on that host."""
    from gpurun.config import hosts as known

    host, colon, _ = incomplete.partition(":")
    if not colon:
        return data(incomplete)
    there = known.read().hosts.get(host)
    names = [f"{host}:{name}" for name in sorted(there.data)] if there else []
    return [(name, f"on {host}") for name in names if name.startswith(incomplete)]


def scripts(incomplete: str) -> list[str]:
    """Scripts, job files and the folders on the way to them."""
    folder, _, beginning = incomplete.rpartition("/")
    before = f"{folder}/" if folder else ""
    try:
        found = sorted(Path(before or ".").iterdir())
    except OSError:
        return []
    names = [path.name + "/" * path.is_dir() for path in found if not path.name.startswith(".")]
    wanted = (".py", ".ipynb", ".sh", ".toml", "/")
    return [before + name for name in names if name.startswith(beginning) and name.endswith(wanted)]


def templates(incomplete: str) -> list[str]:
    """What `gpurun init` can write."""
    from gpurun.job.templates import TEMPLATES

    return [name for name in TEMPLATES if name.startswith(incomplete)]
