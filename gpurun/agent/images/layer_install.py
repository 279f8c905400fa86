"""Installs a project's requirements into the Python that runs this file, with torch and its kin held as they are.

A program of its own: `python layer_install.py ORDER.json`, run inside the image or the environment of a job. Everything it
says is for people; its last line says how it ended, and its exit code says what that means.
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
SATISFIED = 10  # everything was there already
CONFLICT = 11  # the last line says what contradicts what
FAILED = 12

# What the base was built around. Another torch beside its CUDA libraries is a different machine.
_HELD = re.compile(r"torch|torchvision|torchaudio|triton|pytorch-triton.*|nvidia-.*")
_COMPARED = ("torch", "torchvision", "torchaudio")
_ARCHIVES = (".whl", ".tar.gz", ".zip", ".tar.bz2")


class Conflict(Exception):
    """The requirements contradict what the base holds."""


class Failed(Exception):
    """They cannot be installed."""


def read_lines(path: str, seen: Optional[Set[str]] = None) -> Iterator[Tuple[str, str]]:
    """The requirement lines of a file and of those it names by -r and -c: (folder of the file, line).

    A line of a constraints file comes as `-c` and the constraint. Comments are gone, continued lines are joined.
    """
    seen = set() if seen is None else seen
    path = os.path.normpath(path)
    if path in seen:
        return
    seen.add(path)
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
        for inner_folder, inner in read_lines(os.path.join(folder, nested.group(2).strip()), seen):
            is_constraint = nested.group(1) in ("-c", "--constraint")
            yield inner_folder, "-c " + inner if is_constraint else inner


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def packaging() -> Any:
    """The packaging library: pip's own, where it is not installed."""
    try:
        import pip._vendor.packaging.requirements as found
    except ImportError:
        import packaging.requirements as found  # type: ignore[no-redef]
    return found


def local_path(line: str, folder: str) -> Optional[str]:
    """The absolute path that a requirement line names; None for an option, and for what comes from elsewhere."""
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
    """What is left to install: lines for pip, constraints, and what was left out and why."""

    def __init__(self) -> None:
        self.lines: List[str] = []
        self.requirements: List[Any] = []
        self.constraints: List[str] = []
        self.local = False
        self.notes: List[str] = []


def sort_out(lines: List[Tuple[str, str]], order: InstallOrder, held: Dict[str, str]) -> Sorted:
    """Drop the project itself and what the base holds. Raises Conflict when the base holds another version."""
    found = Sorted()
    for folder, line in lines:
        if line.startswith("-c "):
            if not is_held(line[3:], held):
                found.constraints.append(line[3:])
            continue
        path = local_path(line, folder)
        if path is not None and os.path.normpath(order["project"]) == path:
            found.notes.append("%s is the project itself: its code is on PYTHONPATH, not installed" % line)
        elif path is not None:
            found.local = True
            found.lines.append(place(path))
        elif line.startswith("-") and not re.match(r"(-e|--editable)\b", line):
            found.lines.append(absolute_option(line, folder))
        else:
            add(found, re.sub(r"^(-e|--editable)[ =]*", "", line), order, held)
    return found


def add(found: Sorted, line: str, order: InstallOrder, held: Dict[str, str]) -> None:
    text = re.split(r"\s+--", line)[0].strip()
    try:
        requirement = packaging().Requirement(text)
    except ValueError:  # such as git+https://... without a name: pip reads more than the standard says
        found.lines.append(line)
        found.local = True
        return
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return
    version = held.get(normal(requirement.name))
    if version is None:
        found.lines.append(line)
        found.requirements.append(requirement)
        return
    if normal(requirement.name) not in _COMPARED:
        return
    if requirement.url or not requirement.specifier.contains(version, prereleases=True):
        raise Conflict(
            "%s asks for %s, %s has %s %s" % (order["file"], text, order["where"], requirement.name, version)
        )


def is_held(line: str, held: Dict[str, str]) -> bool:
    name = re.match(r"[A-Za-z0-9._-]+", line)
    return name is not None and normal(name.group(0)) in held


def place(path: str) -> str:
    """A local package as pip gets it: a folder is copied first, for it may be read-only and building writes into it."""
    if os.path.isdir(path):
        copy = os.path.join(tempfile.mkdtemp(prefix="gpurun-"), os.path.basename(path))
        shutil.copytree(path, copy, symlinks=True)
        return copy
    return path


def absolute_option(line: str, folder: str) -> str:
    """pip runs elsewhere: a folder of wheels is named by its whole path."""
    links = re.match(r"(-f|--find-links)[ =]+(\S+)$", line)
    if links and "://" not in links.group(2):
        return "--find-links " + os.path.join(folder, links.group(2))
    return line


def installed(*, every: bool = False) -> Dict[str, str]:
    """Normal name -> version of what is installed and held (or of everything). Empty of kin when torch is not there."""
    from importlib.metadata import distributions

    found: Dict[str, str] = {}
    for one in distributions():
        name = normal(one.metadata["Name"] or "")
        if name and (every or _HELD.fullmatch(name)):
            found.setdefault(name, one.version)
    return found if every or "torch" in found else {}


def is_satisfied(requirements: List[Any], held: Dict[str, str]) -> bool:
    """Everything asked for is there in a version that fits, and so is all that those need, with their extras."""
    from importlib.metadata import distribution

    have = installed(every=True)
    to_see, seen = [(requirement, "") for requirement in requirements], set()
    while to_see:
        requirement, extra = to_see.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        version = have.get(normal(requirement.name))
        if version is None or requirement.url or not requirement.specifier.contains(version, prereleases=True):
            return False
        key = (normal(requirement.name), frozenset(requirement.extras))
        if key in seen or key[0] in held:
            continue
        seen.add(key)
        for needed in distribution(requirement.name).requires or []:
            to_see.extend((packaging().Requirement(needed), name) for name in ("", *requirement.extras))
    return True


def main(path: str) -> int:
    with open(path) as file:
        order = json.load(file)
    # pip imports by name: nothing of this file's folder, or of the project, may stand in its way.
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
    """What pip and git find in the environment. In a container it is set here, for the engine would keep it in the layer."""
    if order.get("cache"):
        os.environ["PIP_CACHE_DIR"] = order["cache"]
    ssh = order.get("ssh")
    if ssh:
        os.environ["SSH_AUTH_SOCK"] = ssh["agent"]
        os.environ["GIT_SSH_COMMAND"] = "ssh -oBatchMode=yes -oUserKnownHostsFile=" + ssh["known_hosts"]


def install(order: InstallOrder) -> int:
    held = installed()
    have_pip()
    found = sort_out(wanted(order), order, held)
    for note in found.notes:
        print(note, flush=True)
    if not found.local and is_satisfied(found.requirements, held):
        print("all that %s asks for is there already" % order["file"], flush=True)
        return SATISFIED
    have_git(found.lines, order)
    with tempfile.TemporaryDirectory(prefix="gpurun-") as folder:
        lines, constraints = os.path.join(folder, "requirements.txt"), os.path.join(folder, "held.txt")
        write(lines, found.lines)
        write(constraints, found.constraints + ["%s==%s" % pair for pair in sorted(held.items())])
        code, said = run(pip_install(order, "--requirement", lines, "--constraint", constraints))
    if code == 0:
        return INSTALLED
    explained = explain_conflict(said)
    if explained is not None:
        raise Conflict("%s: %s" % (order["file"], explained))
    raise Failed("pip could not install what %s asks for: %s" % (order["file"], explain(said)))


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
    """What `uv.lock` pins, as requirement lines."""
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
        code, said = run(argv, {"UV_PYTHON_DOWNLOADS": "never"})
        if code != 0:
            raise Failed("uv could not read %s: %s" % (order["file"], explain(said)))
        return [(project, line) for _, line in read_lines(target)]


def find_uv(order: InstallOrder, folder: str) -> List[str]:
    found = shutil.which("uv") or shutil.which("uv", path=os.path.dirname(sys.executable))
    if found:
        return [found]
    code, said = run(pip_install(order, "--target", os.path.join(folder, "uv"), "uv"))
    if code != 0:
        raise Failed("%s needs uv, which could not be installed: %s" % (order["file"], explain(said)))
    return [os.path.join(folder, "uv", "bin", "uv")]


def have_pip() -> None:
    """An environment may be made without pip, from a Python that has none."""
    try:
        import pip  # noqa: F401
    except ImportError:
        code, said = run([sys.executable, "-m", "ensurepip"])
        if code != 0:
            raise Failed("%s has no pip: %s" % (sys.prefix, explain(said))) from None


def have_git(lines: List[str], order: InstallOrder) -> None:
    """git and ssh in an image that lacks them, for the requirements that come from a repository."""
    in_container = bool(order.get("cache"))
    if not in_container or shutil.which("git") or not any("git+" in line for line in lines):
        return
    for argv in (
        ["apt-get", "update"],
        ["apt-get", "install", "-y", "--no-install-recommends", "git", "openssh-client"],
    ):
        code, said = run(argv, {"DEBIAN_FRONTEND": "noninteractive"}) if shutil.which(argv[0]) else (1, "")
        if code != 0:
            raise Failed("%s needs git, which the image lacks: %s" % (order["file"], explain(said)))


def pip_install(order: InstallOrder, *args: str) -> List[str]:
    named = order.get("index")
    index = ["--index-url", named] if named else []
    return [sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *index, *args]


def run(argv: List[str], env: Optional[Dict[str, str]] = None) -> Tuple[int, str]:
    """Run it, pass on what it says, and keep it too."""
    more = {"PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_ROOT_USER_ACTION": "ignore", "PYTHONUNBUFFERED": "1", **(env or {})}
    child = subprocess.Popen(
        argv, env={**os.environ, **more}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert child.stdout is not None
    said = b""
    for line in child.stdout:
        if not line.startswith(b"Requirement already satisfied"):  # dozens, for a torch that is there
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        said = (said + line)[-65536:]
    return child.wait(), said.decode("utf-8", "replace")


def write(path: str, lines: List[str]) -> None:
    with open(path, "w") as file:
        file.writelines(line + "\n" for line in lines)


def explain_conflict(said: str) -> Optional[str]:
    """What contradicts what, in one line, from pip's paragraph about it; None when that is not why it failed."""
    _, found, rest = said.partition("The conflict is caused by:")
    if not found:
        return None
    causes = []
    for line in rest.splitlines()[1:]:
        if not line.strip():
            break
        causes.append(line.strip().replace("The user requested (constraint)", "the base has"))
    return "; ".join(causes)


def explain(said: str) -> str:
    """The lines of a failure that name its cause."""
    errors = [line.strip() for line in said.splitlines() if re.match(r"\s*(ERROR|error|fatal)\b", line)]
    lines = errors or [line.strip() for line in said.splitlines() if line.strip()]
    return " ".join(lines[-2:]) or "it said nothing"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
