"""The unit tests start no process and do not sleep; see conftest.py beside this file."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from tests.unit import conftest

STARTS: dict[str, Callable[[], object]] = {
    "subprocess": lambda: subprocess.run(["true"], check=False),
    "fork": lambda: os.fork() or os._exit(0),
    "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "system": lambda: os.system("true"),
    "sleep": lambda: time.sleep(0.001),
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_unit_test_that_starts_a_process_or_sleeps_fails(start: Callable[[], object]) -> None:
    with pytest.raises(pytest.fail.Exception, match="move it to the same folder of tests/integration"):
        start()


def test_process_that_a_thread_of_a_unit_test_starts_is_remembered() -> None:
    caught: list[str] = []

    def start() -> None:
        try:
            subprocess.run(["true"], check=False)
        except pytest.fail.Exception as error:
            caught.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert caught == conftest.refused
    conftest.refused.clear()
