"""`data`: make a lasting data folder of this host and return its path: `{name, pushed: bool}` -> `{path, empty, free}`;
`free` in bytes.

Without `pushed` a push begins; with it, a push is complete.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from .. import error_codes
from ..errors import AgentError
from ..files import read_json, write_json
from ..paths import HostPaths

if TYPE_CHECKING:
    from ..schema.answers import DataAnswer
    from ..schema.requests import DataRequest

NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"


def answer(request: DataRequest, host: HostPaths) -> DataAnswer:
    name = str(request["name"])
    if re.fullmatch(NAME, name) is None:
        raise AgentError(
            error_codes.BAD_NAME,
            "%r is not a valid name for a data folder" % name,
            "use letters, digits, `_`, `-` and `.`",
            exit_code=2,
        )
    path = host.data(name)
    os.makedirs(path, exist_ok=True)
    with suppress(OSError):  # a failed note must not fail the push
        _note(host.push_note(name), "pushed" if request.get("pushed") else "began")
    disk = os.statvfs(path)
    with os.scandir(path) as entries:
        empty = next(entries, None) is None
    return {"path": path, "empty": empty, "free": disk.f_bavail * disk.f_frsize}


def _note(path: str, event: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_json(path, {**(read_json(path) or {}), event: time.time()})
