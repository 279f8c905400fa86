"""What becomes of IPython's own syntax (`%magic`, `%%magic`, `!command`, `name?`) in a script, each decided by a table.

Some is done by gpurun_notebook in the job, some means nothing without a person who looks and is left out, what is to be
installed becomes a requirement of the run, and the rest is refused.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

SHIM = "__gpurun__"  # what gpurun_notebook is called in the script

# Done in the job: line magic -> function of gpurun_notebook, which takes the rest of the line.
DONE = {
    "env": "env", "set_env": "env", "cd": "cd", "pwd": "pwd", "time": "timed", "run": "run", "sx": "getoutput",
    "system": "getoutput",
}  # fmt: skip
# Names of commands that are magics too.
COMMANDS = ("ls", "cat", "mkdir", "rmdir", "rm", "cp", "mv")
# Means nothing without a person who looks, or is the rule in a job anyway.
_MEANINGLESS = """
matplotlib autoreload load_ext reload_ext unload_ext config aimport pinfo pinfo2 pdoc pdef psource pfile pdb debug
who whos who_ls history hist xmode precision colors autosave autocall automagic autoawait lsmagic magic quickref
notebook logstart logstop logon logoff doctest_mode timeit tensorboard watermark
"""
LEFT_OUT = frozenset(_MEANINGLESS.split())
# Of these a person may have expected something.
_WORTH_A_NOTE = {
    "timeit": "it measures and changes nothing",
    "tensorboard": "`gpurun tunnel` opens one over all runs",
    "debug": "nobody is there to debug",
}
_CELLS_LEFT_OUT = {
    "timeit": "it measures and changes nothing",
    "javascript": "no browser is there",
    "js": "no browser is there",
    "markdown": "it is text",
    "latex": "it is text",
}
_SHELLS = ("bash", "sh")

_PIP = re.compile(r"\s*(?:(?:\{sys\.executable\}|python3?)\s+-m\s+)?(?:uv\s+)?pip3?\s+(?P<rest>.*)", re.S)
_TO_NOWHERE = re.compile(r"\s*[12&]?>+\s*/dev/null|\s*2>&1|\s*\|\s*(?:tail|grep -v)\b[^|;&]*$")
_SWITCHES = """
-q -qq -qqq --quiet -U --upgrade --user --no-cache-dir --disable-pip-version-check -y --yes --system
--break-system-packages --no-warn-script-location --root-user-action=ignore --progress-bar=off
"""
_PIP_SWITCHES = frozenset(_SWITCHES.split())
_HARMLESS_PIP = ("list", "show", "freeze", "check", "config", "cache", "--version", "-V")


class Refused(Exception):
    """No script can do this; the message says what and, where that is known, what to write in its place."""


@dataclass
class Found:
    """What the cells of a notebook ask for besides running."""

    requirements: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, cell: int, what: str) -> None:
        self.notes.append(f"cell {cell}: {what}")


@dataclass(frozen=True)
class CellMagic:
    """What stands for a cell with `%%magic`: `before` alone, or around the Python that the cell holds."""

    before: str
    after: str = ""
    runs_python: bool = False


def line(kind: str, words: list[str], cell: int, found: Found) -> str:
    """The expression for `get_ipython().<kind>(*words)`. Raises Refused."""
    if kind in ("system", "getoutput") and len(words) == 1:
        if kind == "system" and _is_pip(words[0]):
            return _pip(words[0], cell, found)
        return f"{SHIM}.{kind}({words[0]!r})"
    if kind == "run_line_magic" and len(words) == 2:
        return _line_magic(words[0], words[1], cell, found)
    raise Refused(f"get_ipython().{kind}(...) has no meaning without IPython")


def _line_magic(name: str, rest: str, cell: int, found: Found) -> str:
    typed = f"%{name} {rest}".strip()
    if name in ("pip", "uv"):
        return _pip(typed.removeprefix("%"), cell, found, percent=True)
    if name == "run" and rest.partition(" ")[0].endswith(".ipynb"):
        raise Refused(f"{typed}: a run has one notebook; move what both need into a module of the project")
    if name in DONE:
        return f"{SHIM}.{DONE[name]}({rest!r})"
    if name in COMMANDS:
        return f"{SHIM}.system({typed.removeprefix('%')!r})"
    if name in LEFT_OUT:
        if name in _WORTH_A_NOTE:
            found.note(cell, f"{typed} is left out: {_WORTH_A_NOTE[name]}")
        return f"{SHIM}.left_out({typed!r})"
    if name == "conda":
        raise Refused(f"{typed}: write the packages into requirements.txt; conda is not in the image")
    raise Refused(f"{typed} has no meaning without Jupyter")


def cell_magic(first: str, body: str, cell: int, found: Found) -> CellMagic:
    """What stands for a cell whose first line is `first` and whose other lines are `body`. Raises Refused."""
    name, _, rest = first.removeprefix("%%").strip().partition(" ")
    typed, rest = first.strip(), rest.strip()
    if name == "script" and rest in _SHELLS:
        name, rest = rest, ""
    if name == "time" and not rest:
        return CellMagic(f"{SHIM}.time_begins()", f"{SHIM}.time_ends()", runs_python=True)
    if name == "capture" and not [word for word in rest.split() if not word.startswith("--")]:
        return CellMagic(f"{SHIM}.left_out({typed!r})", runs_python=True)  # a log wants what a page has no room for
    if name in _SHELLS and rest in ("", "--no-raise-error"):
        return CellMagic(f"{SHIM}.script({name!r}, {body!r}, check={not rest})")
    if name in ("system", "!"):
        return CellMagic(f"{SHIM}.script('sh', {body!r}, check=False)")
    if name in ("writefile", "file"):
        return _write_file(typed, rest, body)
    if name in ("html", "HTML", "svg", "SVG"):
        return CellMagic(f"{SHIM}.show_{name.lower()}({body!r})")
    if name in _CELLS_LEFT_OUT:
        found.note(cell, f"{typed} is left out: {_CELLS_LEFT_OUT[name]}")
        return CellMagic(f"{SHIM}.left_out({typed!r})")
    if name == "capture":
        raise Refused(f"{typed}: what a cell prints goes to the log; contextlib.redirect_stdout catches it in a script")
    raise Refused(f"{typed} has no meaning without Jupyter")


def _write_file(typed: str, rest: str, body: str) -> CellMagic:
    words = shlex.split(rest)
    append = "-a" in words or "--append" in words
    names = [word for word in words if word not in ("-a", "--append")]
    if len(names) != 1:
        raise Refused(f"{typed}: wants one name of a file")
    return CellMagic(f"{SHIM}.write_file({names[0]!r}, {body!r}, append={append})")


def _is_pip(command: str) -> bool:
    return _PIP.match(command) is not None


def _pip(command: str, cell: int, found: Found, *, percent: bool = False) -> str:
    """What pip is asked to install becomes a requirement of the run, installed once by the host before it starts."""
    match = _PIP.match(command)
    rest = _TO_NOWHERE.sub("", match["rest"]).strip() if match else ""
    typed = command.strip()
    unquoted = re.sub(r"'[^']*'|\"[^\"]*\"", "", rest)
    if match is None or re.search(r"[;&|`{}$]" if percent else r"[;&|`{}$<>]", unquoted):
        raise Refused(f"{typed}: write what it installs into requirements.txt")
    try:
        verb, *words = shlex.split(rest, comments=True) or [""]
    except ValueError as error:
        raise Refused(f"{typed}: {error}") from None
    if verb in _HARMLESS_PIP:
        return f"{SHIM}.system({f'python -m pip {rest}'!r})"
    if verb != "install":
        raise Refused(f"{typed}: packages are those of the image and of requirements.txt")
    wanted = _requirements(words, typed)
    found.requirements += [one for one in wanted if one not in found.requirements]
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
                continue  # of the project: it is installed anyway
            raise Refused(f'{typed}: name the file in gpurun.toml: dependencies = "{file}"')
        if word in ("-e", "--editable"):
            continue  # what follows is a folder, and the project's is importable anyway
        if word.strip("./") == "" or word.startswith((".[", "../", "./")):
            continue
        try:
            wanted.append(str(Requirement(word)) if "://" not in word or " @ " in word else word)
        except InvalidRequirement:
            raise Refused(f"{typed}: `{word}` is for requirements.txt") from None
    return wanted
