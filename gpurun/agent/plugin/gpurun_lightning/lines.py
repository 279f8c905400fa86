"""Files of the run's out/: whole lines are appended, and other files are seen whole or not at all."""

import json
import math
import os
from typing import Any, Dict, List


def append(path: str, line: Dict[str, Any]) -> None:
    """In one write, so that no reader and no kill finds a half one between two others."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)


def read(path: str) -> List[Dict[str, Any]]:
    """All whole lines; none when there is no file."""
    try:
        with open(path, "rb") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    lines = []
    for line in text.split(b"\n"):
        try:
            lines.append(json.loads(line))
        except ValueError:  # torn by a kill, or the end
            continue
    return [line for line in lines if isinstance(line, dict)]


def replace(path: str, content: Dict[str, Any]) -> None:
    fresh = "%s.%d" % (path, os.getpid())
    with open(fresh, "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, path)


def number(value: Any) -> Any:
    """A metric as JSON has it: None for what is no finite number."""
    try:
        found = float(value)
    except (TypeError, ValueError, RuntimeError):  # a tensor of several values, or on a device that failed
        return None
    return found if math.isfinite(found) else None
