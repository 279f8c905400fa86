"""Read one request and write one answer. docs/design.md describes the wire."""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

from . import error_codes
from . import vocabulary as words
from .errors import AgentError
from .frames import Frames
from .host import locks
from .paths import HostPaths

if TYPE_CHECKING:
    from .schema.host import ErrorDocument
    from .schema.wire import Reply, Request

VERBS = (
    "prepare", "start", "ps", "status", "logs", "wait", "stop", "rm", "shell",
    "outputs", "hash", "fetched", "data", "data_folders", "facts", "check", "leave", "warm", "tunnel", "resume", "migrate", "checkpoint", "unfetched",
)  # fmt: skip


def main() -> None:
    request: Request = json.loads(sys.stdin.buffer.readline())
    verb = sys.argv[1]
    try:
        module = _load(verb, request)
        host = HostPaths.of(request.get("root"))
        locks.work_for(host)
        answer = module.answer(request, host)
    except Exception as error:  # noqa: BLE001 (the laptop receives the error)
        _reply(request["nonce"], {"ok": False, "error": _error_document(verb, error)})
        return
    _reply(request["nonce"], {"ok": True, "answer": answer})
    if hasattr(module, "stream") and request.get("stream", True):
        frames = Frames()
        try:
            try:
                module.stream(request, host, frames)
            except BrokenPipeError:
                raise
            except Exception as error:  # noqa: BLE001 (the laptop receives the error, else it would repeat the request)
                frames.error(_error_document(verb, error))
        except BrokenPipeError:
            # The client closed the connection, which is not a failure. Keep Python from printing an error at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _load(verb: str, request: Request) -> Any:
    if request.get("protocol") != words.PROTOCOL or verb not in VERBS:
        raise AgentError(
            error_codes.PROTOCOL, "the laptop requested '%s', which this agent does not have" % verb, "update gpurun"
        )
    return importlib.import_module("gpurun.agent.verbs." + verb)


def _reply(nonce: str, document: Reply) -> None:
    sys.stdout.buffer.write(("\n%s\n%s\n" % (nonce, json.dumps(document))).encode())
    sys.stdout.buffer.flush()


def _error_document(verb: str, error: Exception) -> ErrorDocument:
    if isinstance(error, AgentError):
        return error.as_json()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _disk_full(error)
    return _internal(verb, error)


def _disk_full(error: OSError) -> ErrorDocument:
    return AgentError(
        error_codes.DISK_FULL,
        "the host's disk is full",
        "gpurun prune --fetched, or name a roomier root for the host",
        where=str(error.filename or ""),
    ).as_json()


def _internal(verb: str, error: Exception) -> ErrorDocument:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return AgentError(
        error_codes.INTERNAL,
        "gpurun's agent failed in '%s': %s: %s" % (verb, type(error).__name__, error),
        "this is a bug of gpurun; run the command again with --debug and report it",
        where="%s:%s" % (last.filename, last.lineno),
    ).as_json()
