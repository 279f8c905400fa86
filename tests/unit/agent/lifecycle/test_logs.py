"""What is read out of a log, and what of a thing that the job has put in its place."""

from __future__ import annotations

from gpurun.agent.tracebacks import traceback_in

FRAMES = '  File "/w/train.py", line 3, in <module>\n    main()\n'


def test_the_last_traceback_ends_with_its_exception() -> None:
    earlier = (
        f"Traceback (most recent call last):\n{FRAMES}KeyError: 'x'\n\nDuring handling of the above exception:\n\n"
    )
    last = f"Traceback (most recent call last):\n{FRAMES}\n    deeper()\nValueError: no"
    assert traceback_in(f"epoch 1\n{earlier}{last}\nbye\n") == last
    assert traceback_in("epoch 1\nValueError: no\n") == ""


def test_that_of_one_rank_among_several() -> None:
    """As torch.distributed prints them."""
    said = [
        "epoch 1",
        "[rank1]: Traceback (most recent call last):",
        "[rank1]:   File \"/w/train.py\", line 3, in <module>",
        "[rank0]:[W1125 ProcessGroupNCCL.cpp:1] Warning: destroy_process_group() was not called",
        "[rank1]:     main()",
        "[rank1]: ValueError: no",
        "[rank1]: and more",
    ]  # fmt: skip
    assert traceback_in("\n".join(said)) == f"Traceback (most recent call last):\n{FRAMES}ValueError: no"
