"""Read a program's output by marks and sizes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpurun import process
from gpurun.process import TimedOut
from gpurun.ssh.pipe import Patience, Pipe


@pytest.fixture
def program() -> Iterator[process.Process]:
    started = process.start(["cat"], stdin=process.PIPE)
    yield started
    process.kill(started)


def test_read_until_and_read_exactly_over_any_bytes(program: process.Process) -> None:
    pipe, patience = Pipe(program), Patience(5)
    big = bytes(range(256)) * 4096
    pipe.write(b"noise MARK\nline\n" + big + b"tail")
    assert pipe.read_until(b"MARK\n", patience) == b"noise "
    assert pipe.read_until(b"\n", patience) == b"line"
    assert pipe.read_exactly(len(big), patience) == big
    assert pipe.read_exactly(5, patience) is None
    assert pipe.unread == b"tail"
    assert pipe.read_until(b"\n", patience) is None


def test_read_from_a_silent_program_times_out(program: process.Process) -> None:
    with pytest.raises(TimedOut):
        Pipe(program).read_until(b"\n", Patience(0.05))


def test_clock_starts_after_the_user_was_prompted(program: process.Process) -> None:
    answers = iter([False, False, True])
    patience = Patience(0.05, started=lambda: next(answers))
    assert not patience.running
    with pytest.raises(TimedOut):
        Pipe(program).read_until(b"\n", patience)
    assert patience.running
    assert next(answers, None) is None
