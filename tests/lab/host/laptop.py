"""A user's laptop: a home of its own, an SSH configuration that knows the lab's hosts, and gpurun."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.host import steps
from tests.lab.host.golden import BASE_IMAGE
from tests.lab.host.lab import Lab
from tests.lab.host.users import ADA, SUE

REPOSITORY = Path(__file__).resolve().parents[3]
MARK = "GPURUN_LAB_LAPTOP"
SHELL_OF_SSH = '#!/bin/sh\nexec {ssh} -F {config} "$@"\n'


@dataclass(frozen=True)
class Result:
    """How a command of the laptop ended."""

    args: Sequence[str]
    returncode: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Stdout, read as one JSON document."""
        return json.loads(self.stdout)


@dataclass
class Laptop:
    """Everything a program started here may read or write of the user's lies in `home`. Use it as a context manager."""

    lab: Lab
    home: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="glap", dir="/tmp")))
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        for folder in (".ssh", "bin", "run", ".config/gpurun", "work"):
            (self.home / folder).mkdir(parents=True, mode=0o700, exist_ok=True)
        shutil.copy(self.lab.key, self.home / ".ssh/id_ed25519")
        (self.home / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
        self.ssh_config.touch()
        self.known_hosts.touch()
        for alias in self.lab.aliases:
            self.add_alias(alias.name, port=alias.host.sshd.port, user=alias.user.name)
            self.trust(alias.host.sshd.known_hosts_line)
        self._write_hosts()
        wrapper = self.home / "bin/ssh"
        wrapper.write_text(SHELL_OF_SSH.format(ssh=shutil.which("ssh"), config=self.ssh_config))
        wrapper.chmod(0o755)

    def __enter__(self) -> Laptop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def ssh_config(self) -> Path:
        return self.home / ".ssh/config"

    @property
    def known_hosts(self) -> Path:
        return self.home / ".ssh/known_hosts"

    @property
    def hosts_file(self) -> Path:
        """gpurun's own hosts.toml. It stands there with the lab's base image for every alias."""
        return self.home / ".config/gpurun/hosts.toml"

    @property
    def env(self) -> dict[str, str]:
        """The environment of everything that runs on the laptop; nothing of this process's but the PATH."""
        return {
            "HOME": str(self.home),
            "PATH": f"{self.home / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "XDG_DATA_HOME": str(self.home / ".local/share"),
            "XDG_STATE_HOME": str(self.home / ".local/state"),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "GPURUN_SSH": str(self.home / "bin/ssh"),
            "PYTHONPATH": str(REPOSITORY),
            "USER": "ada",
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "TERM": "dumb",
            MARK: self.mark,
        }

    def add_alias(self, name: str, *, port: int, user: str = ADA.name, lines: Iterable[str] = ()) -> None:
        """Name a host on a loopback port in the SSH configuration; `lines` are further options of it."""
        options = [
            f"Host {name}",
            "HostName 127.0.0.1",
            f"Port {port}",
            f"User {user}",
            f"IdentityFile {self.home}/.ssh/id_ed25519",
            "IdentitiesOnly yes",
            f"UserKnownHostsFile {self.known_hosts}",
            *lines,
        ]
        with self.ssh_config.open("a") as config:
            config.write("\n    ".join(options) + "\n")

    def trust(self, line: str) -> None:
        """Add a line to known_hosts."""
        with self.known_hosts.open("a") as file:
            file.write(line)

    def trust_port(self, port: int, like: str) -> None:
        """Know the host key of alias `like` on `port` too: a proxy in front of that host."""
        host = next(alias.host for alias in self.lab.aliases if alias.name == like)
        self.trust(f"[127.0.0.1]:{port} {host.sshd.public_key}\n")

    def _write_hosts(self) -> None:
        lines = []
        for alias in self.lab.aliases:
            if alias.host.engine:
                lines += [f"[hosts.{alias.name}]", f'base_image = "{BASE_IMAGE}"']
                lines += ['engine = "sudo -n docker"'] if alias.user == SUE else []
        self.hosts_file.write_text("\n".join(lines) + "\n")

    def project(self, files: Mapping[str, str | bytes], name: str = "vision", *, git: bool = False) -> Path:
        """Make a project folder with `files` (path to content) in the home, and a git repository of it if told."""
        root = self.home / "work" / name
        for path, content in files.items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        if git:
            for argv in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
                steps.run(["git", "-C", root, *argv], step="making a repository", env=self.env)
        return root

    def run(
        self,
        *argv: str,
        cwd: Path | None = None,
        check: bool = True,
        timeout: float = 120,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> Result:
        """Run `argv` on the laptop to its end. With `check`, an exit code other than 0 fails the test."""
        done = subprocess.run(
            argv,
            cwd=cwd or self.home,
            env=self.env | dict(env or {}),
            input=stdin.encode(),
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        stdout, stderr = (said.decode(errors="replace") for said in (done.stdout, done.stderr))
        result = Result(argv, done.returncode, stdout, stderr)
        if check and result.returncode != 0:
            said = f"stdout:\n{result.stdout}\nstderr:\n{result.stderr}"
            raise AssertionError(f"{' '.join(argv)} ended with {result.returncode}\n{said}")
        return result

    def gpurun(self, *arguments: str, **options: Any) -> Result:
        """Run `gpurun ARGUMENTS...`; the options are those of `run`."""
        return self.run(sys.executable, "-m", "gpurun", *arguments, **options)

    def start(self, *arguments: str, cwd: Path | None = None, **options: Any) -> subprocess.Popen[bytes]:
        """Start `gpurun ARGUMENTS...` and return at once; the process is ended with the laptop."""
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        env = self.env | dict(options.pop("env", {}))
        argv = [sys.executable, "-m", "gpurun", *arguments]
        started: subprocess.Popen[bytes] = subprocess.Popen(argv, cwd=cwd or self.home, env=env, **(pipes | options))
        return started

    def ssh(self, alias: str, command: str, **options: Any) -> Result:
        """Run `command` on a host through the user's plain ssh."""
        return self.run("ssh", "-o", "BatchMode=yes", alias, command, **options)

    def processes(self) -> list[int]:
        """What was started here and still runs: connection masters, followers, stuck clients."""
        found = []
        wanted = f"{MARK}={self.mark}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if wanted in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    def close(self) -> None:
        """End what was started here, and remove the home."""
        # ssh writes over the environment of a master, so that `processes` does not know it.
        for socket in self.home.glob("run/gpurun/ssh/*"):
            exit_argv = ["ssh", "-F", "/dev/null", "-o", f"ControlPath={socket}", "-O", "exit", "lab"]
            subprocess.run(exit_argv, capture_output=True, timeout=20, check=False)

        def none_left() -> bool:
            pids = self.processes()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not pids

        steps.until(none_left, step="ending the laptop's processes", seconds=20)
        shutil.rmtree(self.home, ignore_errors=True)
