"""Run the magics that a job supports, and the shell commands of `!`."""

import os
import re
import runpy
import shlex
import shutil
import string
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional

from .shown import log

_start_times: List[float] = []


class Lines(List[str]):
    """The result of `x = !command`: its lines, with IPython's `.n` and `.s` for the whole text."""

    @property
    def n(self) -> str:
        return "\n".join(self)

    @property
    def s(self) -> str:
        return " ".join(self)

    @property
    def l(self) -> List[str]:  # noqa: E743
        return list(self)


def system(command: str) -> None:
    """Run `!command` with its output in the log. As in Jupyter, a failure does not end the script; it is logged."""
    sys.stdout.flush()
    done = subprocess.run(_in_shell(_expanded(command, sys._getframe(1))), stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        log("`%s` ended with exit code %d" % (command, done.returncode))


def getoutput(command: str) -> Lines:
    """Run `x = !command`."""
    argv = _in_shell(_expanded(command, sys._getframe(1)))
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    return Lines(done.stdout.decode(errors="replace").splitlines())


def script(shell: str, text: str, check: bool = True) -> None:
    """Run `%%bash`. Raises CalledProcessError when it fails, as in Jupyter."""
    sys.stdout.flush()
    subprocess.run([shutil.which(shell) or "/bin/sh", "-s"], input=text.encode(), check=check)


def _in_shell(command: str) -> List[str]:
    return [shutil.which("bash") or "/bin/sh", "-c", command]


def _expanded(command: str, frame: Any) -> str:
    """Replace `{expression}` and `$name` by their values, and `$$` by `$`; return any other command unchanged."""
    names = dict(frame.f_globals, **frame.f_locals)
    parts = []
    formatter = string.Formatter()
    try:
        for literal, field, spec, conversion in formatter.parse(command):
            parts.append(re.sub(r"\$(\$|[A-Za-z_]\w*)", lambda match: _value_of(match, names), literal))
            if field is not None:
                value = eval(field + (":" + spec if spec else ""), names)  # a slice, as in IPython
                parts.append(str(formatter.convert_field(value, conversion)))
    except Exception:  # noqa: BLE001 - awk '{print $1}' is not an expression
        return command
    return "".join(parts)


def _value_of(match: Any, names: Dict[str, Any]) -> str:
    name = match.group(1)
    if name == "$":
        return "$"
    return str(names[name]) if name in names else str(match.group(0))


def env(text: str) -> Optional[str]:
    """Run `%env NAME=value`, `%env NAME value` or `%env NAME`."""
    name, sign, value = text.partition("=") if "=" in text else text.partition(" ")
    name, value = name.strip(), value.strip()
    if sign:
        os.environ[name] = _expanded(value, sys._getframe(1))
        print("env: %s=%s" % (name, os.environ[name]), flush=True)
        return None
    return os.environ.get(name) if name else None


def cd(text: str) -> None:
    """Run `%cd folder`."""
    words = [word for word in shlex.split(text) if word != "-q"]
    os.chdir(os.path.expanduser(_expanded(words[0] if words else "~", sys._getframe(1))))
    print(os.getcwd(), flush=True)


def pwd(_: str = "") -> str:
    """Run `%pwd`."""
    return os.getcwd()


def run(text: str) -> None:
    """Run `%run other.py arguments`, and add the names that it defines to the notebook's."""
    words = [word for word in shlex.split(text) if word not in ("-i", "-n")]
    path = words[0] if words[0].endswith(".py") else words[0] + ".py"
    before = sys.argv
    sys.argv = [path, *words[1:]]
    try:
        defined = runpy.run_path(path, run_name="__main__")
    finally:
        sys.argv = before
    names = {name: value for name, value in defined.items() if not name.startswith("__")}
    sys._getframe(1).f_globals.update(names)


def timed(statement: str) -> Any:
    """Run `%time statement`: return its value and log how long it took."""
    frame = sys._getframe(1)
    time_begins()
    try:
        try:
            code = compile(statement, "%time", "eval")
        except SyntaxError:
            exec(compile(statement, "%time", "exec"), frame.f_globals, frame.f_locals)
            return None
        return eval(code, frame.f_globals, frame.f_locals)
    finally:
        time_ends()


def time_begins() -> None:
    """Start the clock of `%%time`, before its cell."""
    _start_times.append(time.monotonic())


def time_ends() -> None:
    """Log the time of `%%time`, after its cell."""
    log("wall time: %.3g s" % (time.monotonic() - _start_times.pop()))


def write_file(path: str, text: str, append: bool = False) -> None:
    """Run `%%writefile path`."""
    with open(os.path.expanduser(path), "a" if append else "w", encoding="utf-8") as file:
        file.write(text if text.endswith("\n") else text + "\n")
    log("wrote " + path)
