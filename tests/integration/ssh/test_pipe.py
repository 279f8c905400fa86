"""Reading a program by marks and sizes."""

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


def test_marks_and_sizes_over_any_bytes(program: process.Process) -> None:
    pipe, patience = Pipe(program), Patience(5)
    big = bytes(range(256)) * 4096
    pipe.feed(b"noise MARK\nline\n" + big + b"tail")
    assert pipe.until(b"MARK\n", patience) == b"noise "
    assert pipe.until(b"\n", patience) == b"line"
    assert pipe.exactly(len(big), patience) == big
    assert pipe.exactly(5, patience) is None
    assert pipe.unread == b"tail"
    assert pipe.until(b"\n", patience) is None


def test_silence_is_noticed(program: process.Process) -> None:
    with pytest.raises(TimedOut):
        Pipe(program).until(b"\n", Patience(0.05))


def test_the_clock_stands_still_while_a_person_is_asked(program: process.Process) -> None:
    looks = iter([False, False, True])
    patience = Patience(0.05, started=lambda: next(looks))
    assert not patience.running
    with pytest.raises(TimedOut):
        Pipe(program).until(b"\n", patience)
    assert patience.running
    assert next(looks, None) is None
