"""Programs are asked with a deadline, and what they say is passed on raw."""

from __future__ import annotations

import pytest

from gpurun.agent import programs


def test_an_answer_has_both_outputs_and_the_code() -> None:
    answer = programs.run(["sh", "-c", "cat; echo err >&2; exit 3"], stdin=b"\xffin", timeout=60)
    assert (answer.code, answer.out, answer.err, answer.ok) == (3, b"\xffin", b"err\n", False)
    assert answer.error_text == "err"


def test_no_answer_in_time() -> None:
    answer = programs.run(["sleep", "3600"], timeout=0.1)
    assert answer.timed_out
    assert not answer.ok


def test_an_answer_is_not_waited_for_when_a_grandchild_keeps_the_pipe() -> None:
    answer = programs.run(["sh", "-c", "sleep 3600 & sleep 3600"], timeout=0.1)
    assert answer.timed_out


def test_what_is_said_is_passed_on_as_it_comes() -> None:
    heard: list[bytes] = []
    answer = programs.watch(["sh", "-c", "printf 'a\\r'; echo b >&2; cat; exit 4"], heard.append, stdin=b"c")
    assert b"".join(heard) == b"a\rb\nc"
    assert (answer.code, answer.out) == (4, b"a\rb\nc")


def test_only_the_end_is_kept() -> None:
    answer = programs.watch(["sh", "-c", "head -c 200000 /dev/zero; printf end"], lambda _: None)
    assert len(answer.out) == programs.TAIL
    assert answer.out.endswith(b"end")


def test_who_listens_may_give_up_while_all_is_silent() -> None:
    def give_up(_: bytes) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        programs.watch(["sleep", "3600"], give_up)
