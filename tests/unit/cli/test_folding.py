"""Where a long line may be broken."""

from __future__ import annotations

import pytest

from gpurun.cli.folding import fold, pieces


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        ("gpurun compare train-7f3k RUN; gpurun ps -a lists them", ["gpurun compare train-7f3k RUN;"]),
        ("see what it did; `gpurun host ls` lists the hosts", ["`gpurun host ls`"]),
        ("choose one: gpurun host use box, or -H box", ["gpurun host use box,"]),
        ("give more (gpurun submit train.py -g 2), or less", ["(gpurun submit train.py -g 2),"]),
        ("say gpurun submit train.py -H demo -- three zero", ["gpurun submit train.py -H demo -- three zero"]),
        ("look into '/home/ada/my project/a.py' there, the users' own", ["'/home/ada/my project/a.py'", "users'"]),
        ('type gpurun host add box "ssh -p 34567 root@1.2.3.4" once more', ['gpurun host add box "ssh -p 34567 root@1.2.3.4"']),
        ("gpurun fetch one two three four --all", ["gpurun fetch one two three four --all"]),
        ("sudo nvidia-ctk runtime configure && sudo systemctl restart docker", [
            "sudo nvidia-ctk runtime configure && sudo systemctl restart docker"
        ]),
        ("the host's key and the user's are two", ["host's", "user's"]),
    ],
)  # fmt: skip
def test_a_command_is_one_piece(line: str, whole: list[str]) -> None:
    found = pieces(line)
    assert " ".join(found) == line
    assert set(whole) <= set(found)


def test_what_is_longer_than_the_line_is_left_to_the_terminal() -> None:
    command = f"gpurun submit {'--flag value ' * 4}-- end"
    assert list(fold(f"  one thing: {command}", 30)) == ["  one thing:", f"  {command}"]


def test_colours_take_no_room() -> None:
    line = "\x1b[1mone two\x1b[0m three"
    assert list(fold(line, len("one two three"))) == [line]
    assert list(fold(line, 10)) == ["\x1b[1mone two\x1b[0m", "three"]
