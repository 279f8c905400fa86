"""Send frames after the answer of a verb. docs/design.md describes the wire."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from .schema.host import ErrorDocument
    from .schema.run import RunRecord
    from .schema.wire import Empty, FrameHead, Made


class Frames:
    """Send what a streaming verb sends after its answer.

    After the client went away, the next write raises BrokenPipeError.
    """

    BEAT_EVERY = 5.0

    def __init__(self) -> None:
        self.spoke = time.monotonic()

    def chunk(self, stream: str, offset: int, data: bytes, attempt: int = 1) -> None:
        """Send `data`, which begins at byte `offset` of the `stream` (`log` or `prepare`) of that attempt."""
        self._send({"stream": stream, "offset": offset, "size": len(data), "attempt": attempt}, data)

    def state(self, record: RunRecord) -> None:
        self._send({"state": record})

    def end(self, record: Union[RunRecord, Made, Empty]) -> None:
        self._send({"end": record})

    def error(self, error: ErrorDocument) -> None:
        """Send why no frame follows: the same request would fail again."""
        self._send({"error": error})

    def beat(self, *, now: bool = False) -> None:
        """Send a sign of life after a silence. By it, a follower of a dead connection ends."""
        if now or time.monotonic() > self.spoke + self.BEAT_EVERY:
            self._send({"beat": time.time()})

    def _send(self, head: FrameHead, data: bytes = b"") -> None:
        sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + data)
        sys.stdout.buffer.flush()
        self.spoke = time.monotonic()
