"""Reach a host by the user's own OpenSSH. All commands to a host share one connection, the master.

GPURUN_SSH names another ssh program (a command line, such as `ssh -F other_config`). Only this module reads it.
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
KEEP_LENDING = 15  # the same when the master forwards the user's agent, which root of the host could use
CONNECT_TIMEOUT = 10  # seconds for TCP and the server's first line
CONTROL_TIMEOUT = 3.0  # seconds for a control command to our own master, over a local socket
PASS_IN = 5.0  # seconds for an empty command over the master
CONNECTION_FAILED = 255  # ssh's own exit code when the remote command did not run to its end
SOCKET_PATH_LIMIT = 104 - 18  # sun_path, less the suffix that ssh adds while it creates the socket


@dataclass(frozen=True)
class Address:
    """The destination of ssh: an alias of the user's configuration, or the address that `host add` got."""

    host: str
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None  # a private key
    jump: str | None = None

    @classmethod
    def parse(cls, text: str, *, identity_file: str | None = None, jump: str | None = None) -> Address:
        """Parse `[user@]host[:port]`; an IPv6 address with a port needs brackets. Raises UsageError."""
        user, _, rest = text.strip().rpartition("@")
        match = re.fullmatch(
            r"\[([^\]]+)\](?::(\d+))?|([^:\s]+)(?::(\d+))?|([0-9a-fA-F]*:[0-9a-fA-F:%.\w]*:[%.\w]*)", rest
        )
        host = match and (match[1] or match[3] or match[5])
        if not match or not host or host.startswith("-") or user.startswith("-"):
            raise UsageError(
                f"`{text}` is not the address of a host", "write [user@]host[:port], for example ada@gpubox:2222"
            )
        port = match[2] or match[4]
        if port is not None and not 0 < int(port) < 65536:
            raise UsageError(f"`{text}` has an invalid port", "a port is a number from 1 to 65535")
        return cls(host, user or None, int(port) if port else None, identity_file, jump)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host and self.port else self.host
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")

    def options(self) -> list[str]:
        """Return ssh's options for this address; they override the user's configuration."""
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
    """Return the ssh program as argv."""
    return shlex.split(os.environ.get("GPURUN_SSH") or "ssh")


def has_terminal() -> bool:
    """Return whether ssh can prompt the user: it does so on /dev/tty, whatever stdin is."""
    return sys.stderr.isatty() and Path("/dev/tty").exists()


def options(*, interactive: bool, forward_agent: bool, connect_timeout: int) -> list[str]:
    """Return the options that gpurun's ssh always has, whatever the user's configuration sets."""
    return [
        f"-oBatchMode={'no' if interactive else 'yes'}",
        # `ask` refuses an unknown key without a terminal, and a changed key always.
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
    """A host and how to reach it. The first command opens the connection and becomes the master."""

    name: str  # what the user calls the host
    address: Address
    interactive: bool = field(default_factory=has_terminal)  # ssh may ask for a password or about a host key
    forward_agent: bool = False
    connect_timeout: int = CONNECT_TIMEOUT
    own_socket: Path | None = None  # of a separate connection, whose master ends with its first command
    proxy: str | None = None  # a ProxyCommand that replaces the address' jump; see ssh/jump.py

    # Builders of argv. They do no I/O except to create the socket's folder.

    @property
    def control_path(self) -> Path:
        """The path of the master's socket, a different one for each way to connect."""
        if self.own_socket is not None:
            return self.own_socket
        config = Path("~/.ssh/config").expanduser()
        # After an alias is edited, the old master must not be used.
        edited = config.stat().st_mtime_ns if config.is_file() else 0
        key = repr((program(), self.address, self.forward_agent, edited))
        return socket_folder() / hashlib.sha256(key.encode()).hexdigest()[:16]

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
        address = self.address.options()
        if self.proxy is not None:
            address = [*replace(self.address, jump=None).options(), f"-oProxyCommand={self.proxy}"]
        return ["-t" if terminal else "-T", *sharing, *ours, *address]

    def argv(self, command: str, *, terminal: bool = False, shared: bool = True) -> list[str]:
        """Return the argv of an ssh that runs `command`, a line for the host's shell."""
        ours = self._options(terminal=terminal, shared=shared)
        return [*program(), *ours, "--", self.address.host, command]

    def rsh(self) -> str:
        """Return the value for `rsync -e`, which splits it at spaces and understands quotes."""
        return shlex.join([*program(), *self._options()])

    @property
    def destination(self) -> str:
        """The part before `:PATH` in rsync's arguments."""
        return f"[{self.address.host}]" if ":" in self.address.host else self.address.host

    def control_argv(self, word: str, *more: str) -> list[str]:
        """Return a control command (`check`, `stop`, `exit`, `forward`) to the master, without the user's configuration."""
        ours = ["-F/dev/null", f"-oControlPath={self.control_path}", "-O", word, *more]
        return [*program()[:1], *ours, "--", self.address.host]

    # Commands on the host.

    def run(self, command: str, *, stdin: bytes = b"", timeout: float | None = None, shared: bool = True) -> Completed:
        """Run a line on the host to its end. Raises TimedOut when a host that let us in is late.

        Exit code 255 may be ssh's own: see `is_up`. There is no limit while ssh may ask the user (see `log_in`). Without a
        user and without an open connection, `connect_timeout` is added to `timeout`.
        """
        argv = (*program(), self.name)
        if shared and self.interactive and not self.is_warm and not self.log_in():
            return Completed(argv, CONNECTION_FAILED, b"", b"")
        if timeout is not None and not (shared and self.is_warm):
            timeout += self.connect_timeout
        with process.scratch() as errors:
            running = self.popen(command, stderr=errors, shared=shared)
            stdout = process.communicate(running, stdin, timeout)
            errors.seek(0)
            return Completed(argv, running.returncode, stdout, errors.read())

    def log_in(self) -> bool:
        """Run the ssh that may ask the user, and that becomes the master. Return whether the host let us in.

        This ssh runs nothing on the host, so no output of the host reaches the terminal. Only this ssh has the terminal: a
        user who must touch a key, or read a banner, sees what ssh prints, in its order. ssh escapes what a server sends.
        """
        argv = [*program(), *self._options(), "-f", "-N", "--", self.address.host]
        login = process.start(argv, stdout=process.DEVNULL)
        process.communicate(login, b"", None)
        return login.returncode == 0

    def patience(self, timeout: float) -> Patience:
        """Return the time limit of a shared question, which starts when the host has let us in (see `run`)."""
        if self.is_warm:
            return Patience(timeout)
        if self.interactive:
            return Patience(timeout, started=self.control_path.exists)
        return Patience(timeout + self.connect_timeout)

    def popen(self, command: str, *, stderr: int | IO[bytes], shared: bool = True) -> Process:
        """Start a line on the host with pipes for stdin and stdout; the caller ends it.

        `stderr` is never the terminal, because the host's shell writes raw bytes to it.
        """
        return process.start(self.argv(command, shared=shared), stdin=process.PIPE, stderr=stderr)

    def attended(self, command: str) -> int:
        """Run a line on the host on the user's terminal (`-t`); return its exit code."""
        # ssh's last message, `Shared connection to ... closed.`, looks like an error.
        quiet = ["-oLogLevel=ERROR"]
        return process.attended([*program(), *quiet, *self.argv(command, terminal=True)[len(program()) :]])

    def with_agent(self) -> Connection:
        """Return the same host with the user's SSH agent forwarded, over a master of its own."""
        return replace(self, forward_agent=True)

    def forward(self, local: Path, target: str) -> bool:
        """Forward the Unix socket `local` to the host's `target`, a socket's path or `address:port`; return whether ssh listens.

        Only the first use shows whether the host allows it.
        """
        local.unlink(missing_ok=True)
        return self._control("forward", f"-L{local}:{target}") is not None

    def unforward(self, local: Path, target: str) -> None:
        """Undo `forward`, on a master that other commands still use."""
        self._control("cancel", f"-L{local}:{target}")
        local.unlink(missing_ok=True)

    # The master.

    @property
    def is_warm(self) -> bool:
        """Return whether the master's socket exists."""
        return self.control_path.exists()

    def is_up(self) -> bool:
        """Return whether the master runs and answers; the host is not asked."""
        return self._control("check") is not None

    def passes(self, *, within: float = PASS_IN) -> bool:
        """Return whether a command still gets through to the host over the master."""
        ours = ["-F/dev/null", "-T", f"-oControlPath={self.control_path}", "-oProxyCommand=false"]  # no other way
        try:
            argv = [*program()[:1], *ours, "--", self.address.host, "exit 0"]
            return self.is_warm and process.run(argv, timeout=within).code == 0
        except TimedOut:
            return False

    def drop(self) -> None:
        """Stop using the master; what runs over it goes on, and the next command opens another one.

        A master that does not answer loses its socket.
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
    """Return a private folder with a short path for the masters' sockets. Raises GpurunError."""
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
        f"there is no private folder for SSH's sockets: {candidates[-1].parent} belongs to another user, or others can enter it",
        "remove it, or set XDG_RUNTIME_DIR to a folder of your own with a short path, and mode 0700",
    )


def _check_private(folder: Path, uid: int) -> None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid or status.st_mode & 0o077:
        raise PermissionError(folder)


def quote(path: str) -> str:
    """Quote a path for the host's shell (bash, dash, fish or tcsh); a leading `~/` means the home on the host."""
    if path == "~":
        return '"$HOME"'
    if path.startswith("~/"):
        return '"$HOME"/' + shlex.quote(path[2:])
    return shlex.quote(path)
