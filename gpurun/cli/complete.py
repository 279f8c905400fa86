"""What the shell offers after TAB. It reads this laptop's files only: a TAB must never wait for a host."""

from __future__ import annotations


def runs(incomplete: str) -> list[tuple[str, str]]:
    """Run ids, newest first, with what they are."""
    from gpurun import index

    return [
        (run.id, f"{run.project} on {run.host}") for run in index.all_runs() if run.id.startswith(incomplete)
    ]


def hosts(incomplete: str) -> list[tuple[str, str]]:
    """Hosts that were added, and aliases of the SSH configuration that have no wildcard."""
    from gpurun.config import hosts as known

    added = [(name, "added") for name in known.read().hosts]
    return [(name, why) for name, why in added if name.startswith(incomplete)]


def scripts(incomplete: str) -> list[str]:
    """Scripts and job files: the shell's own file names do."""
    from glob import escape, glob

    found = [
        *glob(escape(incomplete) + "*.py"),
        *glob(escape(incomplete) + "*.sh"),
        *glob(escape(incomplete) + "*.toml"),
    ]
    return sorted(found + [name for name in glob(escape(incomplete) + "*/") if not name.startswith(".")])
