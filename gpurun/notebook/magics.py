"""Convert IPython's syntax (`%magic`, `%%magic`, `!command`, `name?`) for a script, by tables.

gpurun_notebook runs some of it in the job. Interactive magics are left out, packages to install become requirements of the run,
and everything else is refused.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

SHIM = "__gpurun__"  # the name of gpurun_notebook in the script

# Supported in the job: line magic -> function of gpurun_notebook, which gets the rest of the line.
SUPPORTED = {
    "env": "env", "set_env": "env", "cd": "cd", "pwd": "pwd", "time": "timed", "run": "run", "sx": "getoutput",
    "system": "getoutput",
}  # fmt: skip
# Shell commands that are magics too.
COMMANDS = ("ls", "cat", "mkdir", "rmdir", "rm", "cp", "mv")
# Interactive magics, and those whose effect a job has anyway.
_INTERACTIVE = """
matplotlib autoreload load_ext reload_ext unload_ext config aimport pinfo pinfo2 pdoc pdef psource pfile pdb debug
who whos who_ls history hist xmode precision colors autosave autocall automagic autoawait lsmagic magic quickref
notebook logstart logstop logon logoff doctest_mode timeit tensorboard watermark
"""
LEFT_OUT = frozenset(_INTERACTIVE.split())
# The user gets a note about these.
_NOTES = {
    "timeit": "it measures and changes nothing",
    "tensorboard": "`gpurun tunnel` opens one over all runs",
    "debug": "a job has no debugger",
}
_CELLS_LEFT_OUT = {
    "timeit": "it measures and changes nothing",
    "javascript": "a job has no browser",
    "js": "a job has no browser",
    "markdown": "it is text",
    "latex": "it is text",
}
_SHELLS = ("bash", "sh")

_PIP = re.compile(r"\s*(?:(?:\{sys\.executable\}|python3?)\s+-m\s+)?(?:uv\s+)?pip3?\s+(?P<rest>.*)", re.S)
_DISCARDED_OUTPUT = re.compile(r"\s*[12&]?>+\s*/dev/null|\s*2>&1|\s*\|\s*(?:tail|grep -v)\b[^|;&]*$")
_SWITCHES = """
-q -qq -qqq --quiet -U --upgrade --user --no-cache-dir --disable-pip-version-check -y --yes --system
--break-system-packages --no-warn-script-location --root-user-action=ignore --progress-bar=off
"""
_PIP_SWITCHES = frozenset(_SWITCHES.split())
_HARMLESS_PIP = ("list", "show", "freeze", "check", "config", "cache", "--version", "-V")


class Refused(Exception):
    """A script cannot do this. The message says what, and what to write instead if that is known."""


@dataclass
class Requests:
    """The requirements of a notebook's cells, and the notes about them."""

    requirements: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, cell: int, what: str) -> None:
        self.notes.append(f"cell {cell}: {what}")


@dataclass(frozen=True)
class CellMagic:
    """The replacement of a cell with `%%magic`: `before` only, or `before` and `after` around the Python in the cell."""

    before: str
    after: str = ""
    runs_python: bool = False


def line(kind: str, words: list[str], cell: int, requests: Requests) -> str:
    """Return the expression that replaces `get_ipython().<kind>(*words)`. Raises Refused."""
    if kind in ("system", "getoutput") and len(words) == 1:
        if kind == "system" and _is_pip(words[0]):
            return _pip(words[0], cell, requests)
        return f"{SHIM}.{kind}({words[0]!r})"
    if kind == "run_line_magic" and len(words) == 2:
        return _line_magic(words[0], words[1], cell, requests)
    raise Refused(f"get_ipython().{kind}(...) has no meaning without IPython")


def _line_magic(name: str, rest: str, cell: int, requests: Requests) -> str:
    typed = f"%{name} {rest}".strip()
    if name in ("pip", "uv"):
        return _pip(typed.removeprefix("%"), cell, requests, percent=True)
    if name == "run" and rest.partition(" ")[0].endswith(".ipynb"):
        raise Refused(f"{typed}: a run has one notebook; move shared code into a module of the project")
    if name in SUPPORTED:
        return f"{SHIM}.{SUPPORTED[name]}({rest!r})"
    if name in COMMANDS:
        return f"{SHIM}.system({typed.removeprefix('%')!r})"
    if name in LEFT_OUT:
        if name in _NOTES:
            requests.note(cell, f"{typed} is left out: {_NOTES[name]}")
        return f"{SHIM}.left_out({typed!r})"
    if name == "conda":
        raise Refused(f"{typed}: write the packages into requirements.txt; conda is not in the image")
    raise Refused(f"{typed} has no meaning without Jupyter")


def cell_magic(first: str, body: str, cell: int, requests: Requests) -> CellMagic:
    """Return the replacement of a cell with the first line `first` and the other lines `body`. Raises Refused."""
    name, _, rest = first.removeprefix("%%").strip().partition(" ")
    typed, rest = first.strip(), rest.strip()
    if name == "script" and rest in _SHELLS:
        name, rest = rest, ""
    if name == "time" and not rest:
        return CellMagic(f"{SHIM}.time_begins()", f"{SHIM}.time_ends()", runs_python=True)
    if name == "capture" and not [word for word in rest.split() if not word.startswith("--")]:
        return CellMagic(
            f"{SHIM}.left_out({typed!r})", runs_python=True
        )  # the log shows the output that the notebook hides
    if name in _SHELLS and rest in ("", "--no-raise-error"):
        return CellMagic(f"{SHIM}.script({name!r}, {body!r}, check={not rest})")
    if name in ("system", "!"):
        return CellMagic(f"{SHIM}.script('sh', {body!r}, check=False)")
    if name in ("writefile", "file"):
        return _write_file(typed, rest, body)
    if name in ("html", "HTML", "svg", "SVG"):
        return CellMagic(f"{SHIM}.show_{name.lower()}({body!r})")
    if name in _CELLS_LEFT_OUT:
        requests.note(cell, f"{typed} is left out: {_CELLS_LEFT_OUT[name]}")
        return CellMagic(f"{SHIM}.left_out({typed!r})")
    if name == "capture":
        raise Refused(
            f"{typed}: the output of a cell goes to the log; use contextlib.redirect_stdout to capture it in a script"
        )
    raise Refused(f"{typed} has no meaning without Jupyter")


def _write_file(typed: str, rest: str, body: str) -> CellMagic:
    words = shlex.split(rest)
    append = "-a" in words or "--append" in words
    names = [word for word in words if word not in ("-a", "--append")]
    if len(names) != 1:
        raise Refused(f"{typed}: needs one file name")
    return CellMagic(f"{SHIM}.write_file({names[0]!r}, {body!r}, append={append})")


def _is_pip(command: str) -> bool:
    return _PIP.match(command) is not None


def _pip(command: str, cell: int, requests: Requests, *, percent: bool = False) -> str:
    """Add pip's packages to the requirements of the run, which the host installs once before the start."""
    match = _PIP.match(command)
    rest = _DISCARDED_OUTPUT.sub("", match["rest"]).strip() if match else ""
    typed = command.strip()
    unquoted = re.sub(r"'[^']*'|\"[^\"]*\"", "", rest)
    if match is None or re.search(r"[;&|`{}$]" if percent else r"[;&|`{}$<>]", unquoted):
        raise Refused(f"{typed}: write the packages into requirements.txt")
    try:
        verb, *words = shlex.split(rest, comments=True) or [""]
    except ValueError as error:
        raise Refused(f"{typed}: {error}") from None
    if verb in _HARMLESS_PIP:
        return f"{SHIM}.system({f'python -m pip {rest}'!r})"
    if verb != "install":
        raise Refused(f"{typed}: a job has only the packages of the image and of requirements.txt")
    wanted = _requirements(words, typed)
    requests.requirements += [each for each in wanted if each not in requests.requirements]
    return f"{SHIM}.left_out({typed!r})"


def _requirements(words: list[str], typed: str) -> list[str]:
    from packaging.requirements import InvalidRequirement, Requirement

    wanted: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word in _PIP_SWITCHES:
            continue
        if word in ("-r", "--requirement") and left and left[0].removeprefix("./").endswith("requirements.txt"):
            file = left.pop(0)
            if file.replace("../", "").removeprefix("./") == "requirements.txt":
                continue  # of the project, so it is installed anyway
            raise Refused(f'{typed}: name the file in gpurun.toml: dependencies = "{file}"')
        if word in ("-e", "--editable"):
            continue  # the next word is a folder; that of the project is importable anyway
        if word.strip("./") == "" or word.startswith((".[", "../", "./")):
            continue
        try:
            wanted.append(str(Requirement(word)) if "://" not in word or " @ " in word else word)
        except InvalidRequirement:
            raise Refused(f"{typed}: write `{word}` into requirements.txt") from None
    return wanted
