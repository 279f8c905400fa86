"""Read and write files of the run's out/: lines are appended whole, and other files are replaced atomically."""

import json
import math
import os
from typing import Any, Dict, List


def append(path: str, line: Dict[str, Any]) -> None:
    """Append the line in one write, so that neither a reader nor a kill can leave half a line between two others."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)


def read(path: str) -> List[Dict[str, Any]]:
    """Return all complete lines; an empty list when there is no file."""
    try:
        with open(path, "rb") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    lines = []
    for line in text.split(b"\n"):
        try:
            lines.append(json.loads(line))
        except ValueError:  # cut off by a kill, or the empty rest
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
    """Return a metric for JSON: None when it is not a finite number."""
    try:
        converted = float(value)
    except (TypeError, ValueError, RuntimeError):  # a tensor of several values, or on a failed device
        return None
    return converted if math.isfinite(converted) else None
