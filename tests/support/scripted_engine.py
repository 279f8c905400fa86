"""An engine for answers that no real one gives on demand: it says its lines one after the other."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from gpurun.agent.host.engine import Engine

# (how the command begins, exit code, stdout, stderr)
Line = tuple[str, int, str, str]

PROGRAM = """
import json, pathlib, sys, time
here = pathlib.Path(__file__).parent
asked = " ".join(sys.argv[1:])
with open(here / "asked", "a") as file:
    file.write(asked + "\\n")
script = json.loads((here / "script").read_text())
if script["hang"] and asked.startswith(script["hang"]):
    time.sleep(60)
begins, code, out, err = script["lines"].pop(0)
assert asked.startswith(begins), asked + " in place of " + begins
(here / "script").write_text(json.dumps(script))
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


class ScriptedEngine:
    """`engine` runs a program that answers with `lines` in their order; a command that begins with `hang` never ends."""

    def __init__(self, folder: Path, lines: Sequence[Line], hang: str = "") -> None:
        self.folder = folder
        (folder / "engine.py").write_text(PROGRAM)
        (folder / "script").write_text(json.dumps({"lines": list(lines), "hang": hang}))
        (folder / "python").symlink_to(sys.executable)
        self.engine = Engine([str(folder / "python"), "-S", str(folder / "engine.py")])

    @property
    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().splitlines()
