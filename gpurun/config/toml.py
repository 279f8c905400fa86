"""Reading TOML files, and saying where one is broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpurun.errors import UsageError


def read(path: Path) -> dict[str, Any]:
    """What `path` says; empty when there is no such file. Raises UsageError with the line where it is broken."""
    import tomllib

    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: this is no valid TOML: {error}", "mend the file and repeat the command") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
