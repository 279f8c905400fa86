"""What the host says about a file's content, and when it does not vouch for it."""

from __future__ import annotations

import io
import os
import threading
import time
import zipfile

from tests.support.run_folder import RunFolder
from tests.unit.agent.verbs.test_hash import ask, run, sha

__all__ = ["run"]


def settle() -> None:
    """A change of the inode itself counts as young for a clock tick."""
    time.sleep(0.11)


def test_a_quiet_file_is_whole(run: RunFolder) -> None:
    run.write(b"odd\n\xff", b"weights")
    settle()
    entry = ask(run, "workspace/odd\n\udcff")
    assert (entry["sha256"], entry["whole"], entry["why"]) == (sha(b"weights"), True, None)


def test_a_checkpoint_without_its_end_is_not_whole(run: RunFolder) -> None:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("data.pkl", b"weights" * 1000)
    run.write("last.ckpt", memory.getvalue()[:3000])
    run.write("best.ckpt", memory.getvalue(), at=time.time() - 1)  # finished a second ago: it says so by itself
    settle()
    assert ask(run, "workspace/last.ckpt")["why"] == "its end is not written yet"
    assert ask(run, "workspace/best.ckpt")["whole"] is True


def test_a_file_that_is_written_while_it_is_read_is_not_whole(run: RunFolder) -> None:
    path = run.write("big.bin", b"\0" * (64 << 20))
    settle()
    stop = threading.Event()

    def keep_writing() -> None:
        with path.open("r+b") as file:
            while not stop.is_set():
                file.seek(0)
                file.write(os.urandom(8))
                file.flush()

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        assert ask(run, "workspace/big.bin")["whole"] is False
    finally:
        stop.set()
        writer.join()
