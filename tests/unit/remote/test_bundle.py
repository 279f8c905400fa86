"""The archive that travels: the same content has the same name, and nothing of this machine goes in."""

from __future__ import annotations

import shlex
import tarfile
from pathlib import Path

from gpurun.remote import bundle


def test_gpuruns_own_bundle_has_the_agent_and_the_loader(tmp_path: Path) -> None:
    with tarfile.open(bundle.current(cache=tmp_path).path) as archive:
        names = archive.getnames()
    assert {"__main__.py", "gpurun/__init__.py", "gpurun/agent/dispatch.py", "gpurun/agent/loader.py"} <= set(names)
    assert "gpurun/agent/plugin/gpurun_lightning-1.0.dist-info/entry_points.txt" in names
    assert not [name for name in names if "__pycache__" in name]


def test_the_question_as_the_hosts_shell_gets_it() -> None:
    assert shlex.split(bundle.question_command(None, None, "abc", "ps")) == [
        *("exec", "sh", "-c"),
        '[ -f "$HOME"/.gpurun/agent/abc/__main__.py ] || exit 90; exec python3 -I -S "$HOME"/.gpurun/agent/abc ps',
    ]
    assert shlex.split(bundle.question_command("/opt/my py", "/big disk", "abc", "ps"))[3] == (
        "[ -f '/big disk/.gpurun/agent/abc'/__main__.py ] || exit 90; exec '/opt/my py' -I -S '/big disk/.gpurun/agent/abc' ps"
    )


def test_the_bootstrap_as_the_hosts_shell_gets_it() -> None:
    script = shlex.split(bundle.bootstrap_command(None, None, "abc", "ps", 4096))[3]
    assert shlex.split(script) == [
        *("exec", "python3", "-I", "-S", "-c"),
        "import sys; exec(eval(sys.stdin.buffer.raw.readline()))",
        *("$HOME/.gpurun/agent/abc", "ps", "4096"),
    ]
