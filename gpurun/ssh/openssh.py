"""One host over the user's own OpenSSH, and one shared connection (the master) that all questions ride on.

GPURUN_SSH names another ssh program (a command line, such as `ssh -F other_config`). It is read here alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from gpurun import process
from gpurun.errors import GpurunError, UsageError
from gpurun.process import Completed, Process, TimedOut
from gpurun.ssh.pipe import Patience

KEEP_MASTER = 600  # seconds without use until the master ends
KEEP_LENDING = 15  # the same for one that lends the user's agent: root of the host could use it meanwhile
CONNECT_TIMEOUT = 10  # seconds for TCP and the server's first line
CONTROL_TIMEOUT = 3.0  # seconds for a word with our own master; it is a local socket
PASS_IN = 5.0  # seconds for an empty command over the master, there and back
CONNECTION_FAILED = 255  # ssh's own exit code for everything but the remote command's end
SOCKET_PATH_LIMIT = 104 - 18  # sun_path, less the suffix that ssh appends while it makes the socket


@dataclass(frozen=True)
class Address:
    """What stands behind `ssh`: an alias of the user's configuration, or what `host add` was told."""

    host: str
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None  # a private key
    jump: str | None = None

    @classmethod
    def parse(cls, text: str, *, identity_file: str | None = None, jump: str | None = None) -> Address:
        """Read `[user@]host[:port]`; an IPv6 number with a port stands in brackets. Raises UsageError."""
        user, _, rest = text.strip().rpartition("@")
        match = re.fullmatch(
            r"\[([^\]]+)\](?::(\d+))?|([^:\s]+)(?::(\d+))?|([0-9a-fA-F]*:[0-9a-fA-F:%.\w]*:[%.\w]*)", rest
        )
        host = match and (match[1] or match[3] or match[5])
        if not match or not host or host.startswith("-") or user.startswith("-"):
            raise UsageError(
                f"`{text}` is no address of a host", "write [user@]host[:port], for example ada@gpubox:2222"
            )
        port = match[2] or match[4]
        if port is not None and not 0 < int(port) < 65536:
            raise UsageError(f"`{text}` has no possible port", "a port is a number from 1 to 65535")
        return cls(host, user or None, int(port) if port else None, identity_file, jump)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host and self.port else self.host
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")

    def options(self) -> list[str]:
        """The same as ssh's options; they win over the user's configuration."""
        argv = []
        if self.user:
            argv += ["-l", self.user]
        if self.port:
            argv += ["-p", str(self.port)]
        if self.identity_file:
            argv += ["-i", str(Path(self.identity_file).expanduser())]
        if self.jump:
            argv += ["-J", self.jump]
        return argv


def program() -> list[str]:
    """The ssh program as argv."""
    return shlex.split(os.environ.get("GPURUN_SSH") or "ssh")


def has_terminal() -> bool:
    """Whether a person can be asked: ssh prompts on /dev/tty, whatever stdin is."""
    return sys.stderr.isatty() and Path("/dev/tty").exists()


def options(*, interactive: bool, forward_agent: bool, connect_timeout: int) -> list[str]:
    """What makes the user's ssh ours, whatever the configuration says beside it."""
    return [
        f"-oBatchMode={'no' if interactive else 'yes'}",
        # Without a terminal `ask` refuses an unknown key; a changed key it always refuses.
        "-oStrictHostKeyChecking=ask",
        "-oFingerprintHash=sha256",
        f"-oConnectTimeout={connect_timeout}",
        "-oServerAliveInterval=5",
        "-oServerAliveCountMax=3",
        "-oRemoteCommand=none",
        "-oPermitLocalCommand=no",
        "-oClearAllForwardings=yes",
        "-oTunnel=no",
        "-oForwardX11=no",
        f"-oForwardAgent={'yes' if forward_agent else 'no'}",
    ]


@dataclass(frozen=True)
class Connection:
    """A host and how to reach it. Nothing is opened before the first question, which becomes the master."""

    name: str  # what the user calls the host
    address: Address
    interactive: bool = field(default_factory=has_terminal)  # may ssh ask for a password, a host key?
    forward_agent: bool = False
    connect_timeout: int = CONNECT_TIMEOUT
    own_socket: Path | None = None  # a connection of its own, whose master ends with its first command
    proxy: str | None = None  # a ProxyCommand that stands for the address' jump; see ssh/jump.py

    # Builders: argv, no IO beyond the socket's folder.

    @property
    def control_path(self) -> Path:
        """Where the master's socket lies: another socket for each way to connect."""
        if self.own_socket is not None:
            return self.own_socket
        config = Path("~/.ssh/config").expanduser()
        # An alias that was edited must not lead to the old host.
        edited = config.stat().st_mtime_ns if config.is_file() else 0
        way = repr((program(), self.address, self.forward_agent, edited))
        return socket_folder() / hashlib.sha256(way.encode()).hexdigest()[:16]

    def _options(self, *, terminal: bool = False, shared: bool = True) -> list[str]:
        ours = options(
            interactive=self.interactive,
            forward_agent=self.forward_agent,
            connect_timeout=self.connect_timeout,
        )
        keep = KEEP_LENDING if self.forward_agent else KEEP_MASTER
        sharing = (
            [
                f"-oControlMaster={'auto' if self.own_socket is None else 'yes'}",
                f"-oControlPersist={keep if self.own_socket is None else 'no'}",
                f"-oControlPath={self.control_path}",
            ]
            if shared
            else ["-oControlMaster=no", "-oControlPath=none"]
        )
        way = self.address.options()
        if self.proxy is not None:
            way = [*replace(self.address, jump=None).options(), f"-oProxyCommand={self.proxy}"]
        return ["-t" if terminal else "-T", *sharing, *ours, *way]

    def argv(self, command: str, *, terminal: bool = False, shared: bool = True) -> list[str]:
        """ssh with `command`, a line for the host's shell."""
        ours = self._options(terminal=terminal, shared=shared)
        return [*program(), *ours, "--", self.address.host, command]

    def rsh(self) -> str:
        """For `rsync -e`, which splits at spaces and knows quotes."""
        return shlex.join([*program(), *self._options()])

    @property
    def destination(self) -> str:
        """What stands before `:PATH` for rsync."""
        return f"[{self.address.host}]" if ":" in self.address.host else self.address.host

    def control_argv(self, word: str, *more: str) -> list[str]:
        """A word with the master (`check`, `stop`, `exit`, `forward`), without the user's configuration."""
        ours = ["-F/dev/null", f"-oControlPath={self.control_path}", "-O", word, *more]
        return [*program()[:1], *ours, "--", self.address.host]

    # Questions.

    def run(self, command: str, *, stdin: bytes = b"", timeout: float | None = None, shared: bool = True) -> Completed:
        """Run a line on the host to its end. Raises TimedOut when a host that let us in is late.

        Exit code 255 may be ssh's own: see `is_up`. Until we are let in the clock stands still where a person
        may be asked; elsewhere `connect_timeout` is added to it.
        """
        asking = self.interactive and not (shared and self.is_warm)
        with process.scratch() as errors:
            # A person who is to touch a key, or reads a banner, must see what ssh says.
            running = self.popen(command, stderr=None if asking else errors, shared=shared)
            stdout = process.communicate(
                running,
                stdin,
                timeout if timeout is None or (shared and self.is_warm) else timeout + self.connect_timeout,
                started=self.control_path.exists if asking and shared else None,
            )
            errors.seek(0)
            return Completed((*program(), self.name), running.returncode, stdout, errors.read())

    def patience(self, timeout: float) -> Patience:
        """The time for a shared question, counted from when the host let us in (see `run`)."""
        if self.is_warm:
            return Patience(timeout)
        if self.interactive:
            return Patience(timeout, started=self.control_path.exists)
        return Patience(timeout + self.connect_timeout)

    def popen(self, command: str, *, stderr: IO[bytes] | None = None, shared: bool = True) -> Process:
        """Start a line on the host with pipes for stdin and stdout; the caller ends it."""
        return process.start(self.argv(command, shared=shared), stdin=process.PIPE, stderr=stderr)

    def attended(self, command: str) -> int:
        """Run a line on the host on the user's terminal (`-t`); its exit code."""
        # ssh's word of farewell, `Shared connection to ... closed.`, sounds as if something had gone wrong.
        quiet = ["-oLogLevel=ERROR"]
        return process.attended([*program(), *quiet, *self.argv(command, terminal=True)[len(program()) :]])

    def with_agent(self) -> Connection:
        """The same host, the user's SSH agent lent to it, over another master: it lends to all or none."""
        return replace(self, forward_agent=True)

    def forward(self, local: Path, target: str) -> bool:
        """Have the master listen on the Unix socket `local` for the host's `target`, a socket's path or `address:port`.

        True when it does; whether the host allows it shows at the first use.
        """
        local.unlink(missing_ok=True)
        return self._control("forward", f"-L{local}:{target}") is not None

    def unforward(self, local: Path, target: str) -> None:
        """Undo `forward`, on a master that others go on with."""
        self._control("cancel", f"-L{local}:{target}")
        local.unlink(missing_ok=True)

    # The master's life.

    @property
    def is_warm(self) -> bool:
        """Whether there seems to be a master, for a mere look at the disk."""
        return self.control_path.exists()

    def is_up(self) -> bool:
        """Whether a master stands and answers (it does not ask the host)."""
        return self._control("check") is not None

    def passes(self) -> bool:
        """Whether a command still gets through to the host over the master."""
        ours = ["-F/dev/null", "-T", f"-oControlPath={self.control_path}", "-oProxyCommand=false"]  # no other way
        try:
            argv = [*program()[:1], *ours, "--", self.address.host, "exit 0"]
            return self.is_warm and process.run(argv, timeout=PASS_IN).code == 0
        except TimedOut:
            return False

    def drop(self) -> None:
        """Let the master go, without harm to what still runs over it; the next question makes another.

        A master that is stuck itself loses its socket.
        """
        if self._control("stop") is None:
            with suppress(FileNotFoundError):
                self.control_path.unlink()

    def close(self) -> None:
        """End the master and everything that runs over it."""
        if self._control("exit") is None:
            with suppress(FileNotFoundError):
                self.control_path.unlink()

    def _control(self, word: str, *more: str) -> Completed | None:
        if not self.control_path.exists():
            return None
        try:
            done = process.run(self.control_argv(word, *more), timeout=CONTROL_TIMEOUT)
        except TimedOut:
            return None
        return done if done.code == 0 else None


def socket_folder() -> Path:
    """A folder for the masters' sockets, out of others' reach and with a short path. Raises GpurunError."""
    uid = os.getuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    candidates = [Path(runtime) / "gpurun" / "ssh"] if runtime and Path(runtime).is_dir() else []
    candidates += [Path(f"/tmp/gpurun-{uid}") / "ssh"]
    for folder in candidates:
        if len(os.fsencode(folder)) + 17 > SOCKET_PATH_LIMIT:
            continue
        with suppress(OSError):
            for part in (folder.parent, folder):
                with suppress(FileExistsError):
                    part.mkdir(mode=0o700)
                _check_private(part, uid)
            return folder
    raise GpurunError(
        f"no private folder for SSH's sockets: {candidates[-1].parent} is somebody else's, or open to others",
        "remove it, or set XDG_RUNTIME_DIR to a folder of your own with a short path, and mode 0700",
    )


def _check_private(folder: Path, uid: int) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o077:
        raise PermissionError(folder)


def quote(path: str) -> str:
    """A path for the host's shell, be it bash, dash, fish or tcsh; a leading `~/` is the home there."""
    if path == "~":
        return '"$HOME"'
    if path.startswith("~/"):
        return '"$HOME"/' + shlex.quote(path[2:])
    return shlex.quote(path)
