"""Files of environment variables, as `--env-file` takes them."""

from __future__ import annotations

from pathlib import Path

from gpurun.config.readers import variable_name
from gpurun.errors import UsageError
from gpurun.secret import Secret


def read_env_file(file: Path) -> dict[str, Secret | None]:
    """Lines `K=V`, or `K` for the laptop's own value (None here). Blank lines and `#` lines are passed over.

    A leading `export ` and one pair of quotes around the value are taken off; nothing is expanded.
    An error never shows a value.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"the env file {file} cannot be read: {reason}", "name a file with lines K=V") from error
    taken: dict[str, Secret | None] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip().removeprefix("export ").strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, sign, value = stripped.partition("=")
        try:
            taken[variable_name(name.strip())] = Secret(_unquoted(value.strip())) if sign else None
        except ValueError:
            raise UsageError(f"{file}, line {number}: begins with no name of a variable", "write K=V") from None
    return taken


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
