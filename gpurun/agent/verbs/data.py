"""Where a lasting data folder of this host is, which is made: `{name}` -> `{path, empty, free}`; `free` in bytes."""

from __future__ import annotations

import os
import re
from typing import Any, Dict

from ..errors import AgentError
from ..paths import HostPaths

NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"


def answer(request: Dict[str, Any], host: HostPaths) -> Dict[str, Any]:
    name = str(request["name"])
    if re.fullmatch(NAME, name) is None:
        raise AgentError(
            "bad_name",
            "%r is no name for a data folder" % name,
            "use letters, digits, `_`, `-` and `.`",
            exit_code=2,
        )
    path = host.data(name)
    os.makedirs(path, exist_ok=True)
    disk = os.statvfs(path)
    with os.scandir(path) as entries:
        empty = next(entries, None) is None
    return {"path": path, "empty": empty, "free": disk.f_bavail * disk.f_frsize}
