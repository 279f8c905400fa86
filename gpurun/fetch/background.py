"""Work that goes on beside: a question that takes long, a transfer whose round trips are not worth waiting for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Runs `work` in a thread that does not keep the program alive; `result` raises what the work raised."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: list[T] = []
        self._error: BaseException | None = None
        # Not the thread's own `join`: one that Ctrl-C breaks off takes the thread for ended ever after.
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is wanted
            self._error = error
        finally:
            self._ended.set()

    def result(self) -> T:
        """Wait for it."""
        self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._result[0]

    def over(self, seconds: float) -> bool:
        """Wait at most so long for its end, whatever that is."""
        return self._ended.wait(seconds)
