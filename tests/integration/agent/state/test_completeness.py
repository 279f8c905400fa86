"""Which evidence says that a file is being written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gpurun.agent.state import completeness


def test_a_file_of_another_process_is_seen_while_that_may_write(tmp_path: Path) -> None:
    read, written = tmp_path / "read", tmp_path / "written"
    read.write_bytes(b"x")
    written.write_bytes(b"x")
    wanted = {completeness.identity(path.stat()): path for path in (read, written)}
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; a=open(sys.argv[1]); b=open(sys.argv[2],'ab'); print(flush=True); input()",
         read, written],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        assert [wanted[one] for one in completeness.open_for_writing(wanted)] == [written]
    finally:
        holder.communicate(b"\n")
    assert completeness.open_for_writing(wanted) == frozenset()
