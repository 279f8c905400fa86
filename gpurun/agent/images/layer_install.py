"""Install a project's requirements into the Python that runs this file, and keep torch and the packages around it
unchanged.

This is a program: `python layer_install.py ORDER.json`, run inside the image or the environment of a job. Its output is
for people; its last line describes how it ended, and its exit code gives the kind.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Set, Tuple

if TYPE_CHECKING:
    from ..schema.programs import InstallOrder

INSTALLED = 0
SATISFIED = 10  # all requirements were already installed
CONFLICT = 11  # the last line names the contradiction
FAILED = 12

# The packages that the base was built around. Another torch beside its CUDA libraries would be a different system.
_HELD = re.compile(r"torch|torchvision|torchaudio|triton|pytorch-triton.*|nvidia-.*")
_COMPARED = ("torch", "torchvision", "torchaudio")
_ARCHIVES = (".whl", ".tar.gz", ".zip", ".tar.bz2")


class Conflict(Exception):
    """Report that the requirements contradict the packages that the base keeps."""


class Failed(Exception):
    """Report that the requirements cannot be installed."""


def read_lines(path: str, paths_read: Optional[Set[str]] = None) -> Iterator[Tuple[str, str]]:
    """Yield the requirement lines of a file, and of the files that it includes by -r and -c, as (folder of the file,
    line).

    A line of a constraints file is yielded as `-c` and the constraint. Comments are removed, continued lines are
    joined.
    """
    paths_read = set() if paths_read is None else paths_read
    path = os.path.normpath(path)
    if path in paths_read:
        return
    paths_read.add(path)
    folder = os.path.dirname(path)
    with open(path, encoding="utf-8", errors="replace") as file:
        text = re.sub(r"\\\r?\n", " ", file.read())
    for raw in text.splitlines():
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        nested = re.match(r"(-r|--requirement|-c|--constraint)[ =]*(.+)", line)
        if nested is None:
            if line:
                yield folder, line
            continue
        for inner_folder, inner in read_lines(os.path.join(folder, nested.group(2).strip()), paths_read):
            is_constraint = nested.group(1) in ("-c", "--constraint")
            yield inner_folder, "-c " + inner if is_constraint else inner


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def packaging() -> Any:
    """Return the packaging library: pip's own, or the installed one when pip's is missing."""
    try:
        import pip._vendor.packaging.requirements as module
    except ImportError:
        import packaging.requirements as module  # type: ignore[no-redef]
    return module


def local_path(line: str, folder: str) -> Optional[str]:
    """Return the absolute path that a requirement line names; None for an option, and for a requirement that is not
    local.
    """
    if re.match(r"-(?!e\b|-editable\b)", line):
        return None
    text = re.sub(r"^(-e|--editable)[ =]*", "", line).split(" @ ", 1)[-1]
    text = re.split(r"\s+--|\s*;", text)[0].strip()
    if text.startswith("file:"):
        text = re.sub(r"^file:(//)?", "", text)
    elif "://" in text or not (text.startswith((".", "/")) or text.endswith(_ARCHIVES) or "/" in text):
        return None
    bare = re.sub(r"\[[^]]*\]$", "", text.split("#")[0])
    return os.path.normpath(os.path.join(folder, bare))


class Sorted:
    """Hold what remains to be installed: lines for pip, constraints, and notes about what was left out and why."""

    def __init__(self) -> None:
        self.lines: List[str] = []
        self.requirements: List[Any] = []
        self.constraints: List[str] = []
        self.local = False
        self.notes: List[str] = []


def sort_out(lines: List[Tuple[str, str]], order: InstallOrder, held: Dict[str, str]) -> Sorted:
    """Drop the project itself and the packages that the base keeps.

    Raises Conflict when the base has another version.
    """
    remaining = Sorted()
    for folder, line in lines:
        if line.startswith("-c "):
            if not is_held(line[3:], held):
                remaining.constraints.append(line[3:])
            continue
        path = local_path(line, folder)
        if path is not None and os.path.normpath(order["project"]) == path:
            remaining.notes.append("%s is the project itself: its code is on PYTHONPATH and is not installed" % line)
        elif path is not None:
            remaining.local = True
            remaining.lines.append(place(path))
        elif line.startswith("-") and not re.match(r"(-e|--editable)\b", line):
            remaining.lines.append(absolute_option(line, folder))
        else:
            add(remaining, re.sub(r"^(-e|--editable)[ =]*", "", line), order, held)
    return remaining


def add(remaining: Sorted, line: str, order: InstallOrder, held: Dict[str, str]) -> None:
    text = re.split(r"\s+--", line)[0].strip()
    try:
        requirement = packaging().Requirement(text)
    except ValueError:  # such as git+https://... without a name: pip accepts more than the standard
        remaining.lines.append(line)
        remaining.local = True
        return
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return
    version = held.get(normal(requirement.name))
    if version is None:
        remaining.lines.append(line)
        remaining.requirements.append(requirement)
        return
    if normal(requirement.name) not in _COMPARED:
        return
    if requirement.url or not requirement.specifier.contains(version, prereleases=True):
        raise Conflict(
            "%s requires %s, but %s has %s %s" % (order["file"], text, order["where"], requirement.name, version)
        )


def is_held(line: str, held: Dict[str, str]) -> bool:
    name = re.match(r"[A-Za-z0-9._-]+", line)
    return name is not None and normal(name.group(0)) in held


def place(path: str) -> str:
    """Return a local package as pip gets it: a folder is copied first, because it may be read-only and building writes
    into it.
    """
    if os.path.isdir(path):
        copy = os.path.join(tempfile.mkdtemp(prefix="gpurun-"), os.path.basename(path))
        shutil.copytree(path, copy, symlinks=True)
        return copy
    return path


def absolute_option(line: str, folder: str) -> str:
    """Return the option with an absolute path: pip runs in another folder."""
    links = re.match(r"(-f|--find-links)[ =]+(\S+)$", line)
    if links and "://" not in links.group(2):
        return "--find-links " + os.path.join(folder, links.group(2))
    return line


def installed(*, every: bool = False) -> Dict[str, str]:
    """Return normal name -> version of the installed packages that are kept (or of all, with `every`).

    Empty when torch is missing.
    """
    from importlib.metadata import distributions

    versions: Dict[str, str] = {}
    for package in distributions():
        name = normal(package.metadata["Name"] or "")
        if name and (every or _HELD.fullmatch(name)):
            versions.setdefault(name, package.version)
    return versions if every or "torch" in versions else {}


def is_satisfied(requirements: List[Any], held: Dict[str, str]) -> bool:
    """Return whether each requirement is installed in a matching version, and so is everything that those require, with
    their extras.
    """
    from importlib.metadata import distribution

    have = installed(every=True)
    to_see, checked = [(requirement, "") for requirement in requirements], set()
    while to_see:
        requirement, extra = to_see.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        version = have.get(normal(requirement.name))
        if version is None or requirement.url or not requirement.specifier.contains(version, prereleases=True):
            return False
        key = (normal(requirement.name), frozenset(requirement.extras))
        if key in checked or key[0] in held:
            continue
        checked.add(key)
        for needed in distribution(requirement.name).requires or []:
            to_see.extend((packaging().Requirement(needed), name) for name in ("", *requirement.extras))
    return True


def main(path: str) -> int:
    with open(path) as file:
        order = json.load(file)
    # pip imports by name: no file of this folder, or of the project, may hide one of its modules.
    sys.path[:] = [folder for folder in sys.path if folder != os.path.dirname(os.path.abspath(__file__))]
    os.chdir("/")
    set_up(order)
    try:
        return install(order)
    except Conflict as conflict:
        print(conflict, flush=True)
        return CONFLICT
    except (Failed, OSError) as failure:
        print(failure, flush=True)
        return FAILED


def set_up(order: InstallOrder) -> None:
    """Set what pip and git read from the environment.

    In a container this is set here, because the engine would store it in the layer.
    """
    if order.get("cache"):
        os.environ["PIP_CACHE_DIR"] = order["cache"]
    ssh = order.get("ssh")
    if ssh:
        os.environ["SSH_AUTH_SOCK"] = ssh["agent"]
        os.environ["GIT_SSH_COMMAND"] = "ssh -oBatchMode=yes -oUserKnownHostsFile=" + ssh["known_hosts"]


def install(order: InstallOrder) -> int:
    held = installed()
    have_pip()
    remaining = sort_out(wanted(order), order, held)
    for note in remaining.notes:
        print(note, flush=True)
    if not remaining.local and is_satisfied(remaining.requirements, held):
        print("all requirements of %s are already installed" % order["file"], flush=True)
        return SATISFIED
    have_git(remaining.lines, order)
    with tempfile.TemporaryDirectory(prefix="gpurun-") as folder:
        lines, constraints = os.path.join(folder, "requirements.txt"), os.path.join(folder, "held.txt")
        write(lines, remaining.lines)
        write(constraints, remaining.constraints + ["%s==%s" % pair for pair in sorted(held.items())])
        code, output = run(pip_install(order, "--requirement", lines, "--constraint", constraints))
    if code == 0:
        return INSTALLED
    explained = explain_conflict(output)
    if explained is not None:
        raise Conflict("%s: %s" % (order["file"], explained))
    raise Failed("pip could not install the requirements of %s: %s" % (order["file"], explain(output)))


def wanted(order: InstallOrder) -> List[Tuple[str, str]]:
    return asked_by_project(order) + [(order["project"], line) for line in order.get("tools", [])]


def asked_by_project(order: InstallOrder) -> List[Tuple[str, str]]:
    project = order["project"]
    if order["kind"] == "pyproject":
        return [(project, line) for line in order["requirements"]]
    if order["kind"] == "uv":
        return export_lock(order)
    return list(read_lines(os.path.join(project, order["file"])))


def export_lock(order: InstallOrder) -> List[Tuple[str, str]]:
    """Return the pinned requirements of `uv.lock`, as requirement lines."""
    project = order["project"]
    with tempfile.TemporaryDirectory(prefix="gpurun-") as folder:
        target = os.path.join(folder, "requirements.txt")
        argv = [
            *find_uv(order, folder),
            "export",
            "--frozen",
            "--no-dev",
            "--no-emit-project",
            "--no-hashes",
            "--quiet",
        ]
        argv += ["--format", "requirements-txt", "--directory", project, "--python", sys.executable]
        argv += ["--cache-dir", os.path.join(folder, "cache"), "--output-file", target]
        code, output = run(argv, {"UV_PYTHON_DOWNLOADS": "never"})
        if code != 0:
            raise Failed("uv could not read %s: %s" % (order["file"], explain(output)))
        return [(project, line) for _, line in read_lines(target)]


def find_uv(order: InstallOrder, folder: str) -> List[str]:
    program = shutil.which("uv") or shutil.which("uv", path=os.path.dirname(sys.executable))
    if program:
        return [program]
    code, output = run(pip_install(order, "--target", os.path.join(folder, "uv"), "uv"))
    if code != 0:
        raise Failed("%s requires uv, which could not be installed: %s" % (order["file"], explain(output)))
    return [os.path.join(folder, "uv", "bin", "uv")]


def have_pip() -> None:
    """Install pip: an environment may be made without it, from a Python that has none."""
    try:
        import pip  # noqa: F401
    except ImportError:
        code, output = run([sys.executable, "-m", "ensurepip"])
        if code != 0:
            raise Failed("%s has no pip: %s" % (sys.prefix, explain(output))) from None


def have_git(lines: List[str], order: InstallOrder) -> None:
    """Install git and ssh in an image that lacks them, for requirements that come from a repository."""
    in_container = bool(order.get("cache"))
    if not in_container or shutil.which("git") or not any("git+" in line for line in lines):
        return
    for argv in (
        ["apt-get", "update"],
        ["apt-get", "install", "-y", "--no-install-recommends", "git", "openssh-client"],
    ):
        code, output = run(argv, {"DEBIAN_FRONTEND": "noninteractive"}) if shutil.which(argv[0]) else (1, "")
        if code != 0:
            raise Failed("%s requires git, which the image lacks: %s" % (order["file"], explain(output)))


def pip_install(order: InstallOrder, *args: str) -> List[str]:
    named = order.get("index")
    index = ["--index-url", named] if named else []
    return [sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *index, *args]


def run(argv: List[str], env: Optional[Dict[str, str]] = None) -> Tuple[int, str]:
    """Run a command, pass on its output, and return the exit code with the last part of the output."""
    variables = {
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PYTHONUNBUFFERED": "1",
        **(env or {}),
    }
    child = subprocess.Popen(
        argv,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert child.stdout is not None
    output = b""
    for line in child.stdout:
        if not line.startswith(b"Requirement already satisfied"):  # dozens of lines when torch is installed
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        output = (output + line)[-65536:]
    return child.wait(), output.decode("utf-8", "replace")


def write(path: str, lines: List[str]) -> None:
    with open(path, "w") as file:
        file.writelines(line + "\n" for line in lines)


def explain_conflict(output: str) -> Optional[str]:
    """Return what contradicts what, in one line, from pip's paragraph about it; None when pip failed for another
    reason.
    """
    _, mark, rest = output.partition("The conflict is caused by:")
    if not mark:
        return None
    causes = []
    for line in rest.splitlines()[1:]:
        if not line.strip():
            break
        causes.append(line.strip().replace("The user requested (constraint)", "the base has"))
    return "; ".join(causes)


def explain(output: str) -> str:
    """Return the lines of a failure that name its cause."""
    errors = [line.strip() for line in output.splitlines() if re.match(r"\s*(ERROR|error|fatal)\b", line)]
    lines = errors or [line.strip() for line in output.splitlines() if line.strip()]
    return " ".join(lines[-2:]) or "it printed nothing"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
