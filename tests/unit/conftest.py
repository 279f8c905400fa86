"""Keep the unit tests pure: a test that starts a process or sleeps fails here, and belongs in tests/integration."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

STARTS_A_PROCESS = frozenset(
    ["os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"]
)

HERE = Path(__file__).parent

_running: list[pytest.Item] = []  # at most one
refused: list[str] = []  # in threads, where a failure ends the thread alone
_sleep = time.sleep


def refuse(what: str) -> None:
    message = f"a unit test called {what}: move it to the same folder of tests/integration"
    if threading.current_thread() is not threading.main_thread():
        refused.append(message)
    pytest.fail(message)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in STARTS_A_PROCESS and _running:
        refuse(event)


def _no_sleep(seconds: float) -> None:  # only Python 3.13 and later have an audit event for it
    """Refuse a real sleep of the test itself; a thread of the code under test may wait for its next turn."""
    if _running and seconds > 0 and threading.current_thread() is threading.main_thread():
        refuse("time.sleep")
    _sleep(seconds)


sys.addaudithook(_audit)
time.sleep = _no_sleep  # type: ignore[assignment]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if item.path.is_relative_to(HERE):  # this hook hears of all tests of the session
        _running.append(item)
    refused.clear()
    try:
        return (yield)
    finally:
        _running.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Fail the test too when the refusal was raised in a thread."""
    yield
    if refused:
        pytest.fail(refused[0], pytrace=False)


@pytest.fixture(autouse=True)
def _no_home(no_home: None) -> None:
    """All tests below this folder."""
