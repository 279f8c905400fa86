"""What every question to the agent has in common: its envelope, and the frames behind an answer. See docs/design.md."""

from __future__ import annotations

from typing import List, Optional, TypedDict

from .host import ErrorDocument
from .run import RunRecord


class Request(TypedDict, total=False):
    """What the laptop (remote/wire.py) adds to each request. Read by agent/dispatch.py and the verbs."""

    nonce: str
    protocol: int
    root: Optional[str]  # of gpurun's files, as the host's profile names it
    owner: str
    engine: Optional[List[str]]  # argv, as the profile names it
    stream: bool  # False: no frames are wanted


class Reply(TypedDict, total=False):
    """The line behind the nonce. Written by agent/dispatch.py, read by remote/wire.py."""

    ok: bool
    answer: object  # see answers.py
    error: ErrorDocument


class Empty(TypedDict):
    """An answer, or the end of a stream, that says nothing more."""


class Made(TypedDict, total=False):
    """The end of the stream of `warm`. Written by agent/verbs/warm.py, read by hosts/ready.py."""

    ok: bool  # always there
    image: str  # these four where it is ok
    digest: str
    id: str
    seconds: float
    what: str  # these two where it is not
    next: str


class FrameHead(TypedDict, total=False):
    """The line before a frame's bytes. Written by agent/frames.py, read by remote/wire.py."""

    stream: str  # log or prepare
    offset: int  # of the first byte, in that file
    size: int  # bytes that follow
    attempt: int
    state: RunRecord
    end: object  # a RunRecord; of `warm` Made, of `check` Empty
    error: ErrorDocument
    beat: float
