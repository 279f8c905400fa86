"""Several embedded hosts that are machines of their own, and a laptop that knows them all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gpurun.demo.host import EmbeddedHost
from tests.e2e.conftest import Laptop
from tests.support import laptops
from tests.support.trainer import TRAINER

REPOSITORY = Path(__file__).parents[2]


class LaptopAndHosts(Laptop):
    """The laptop; `hosts` by the names that its ssh knows them by."""

    hosts: dict[str, EmbeddedHost]
    config: Path
    directory: Path

    def submit_to(self, host: str, *args: str) -> str:
        return self.ok("submit", "-H", host, "train.py", "--", *args).strip().splitlines()[-1]

    def ended_with_a_checkpoint(self, host: str) -> str:
        """A run of `host` that has saved and was stopped."""
        run = self.submit_to(host, "steps=100000", "every=10", "pace=0.02")
        self.until_it_trains(run)
        self.ok("stop", run)
        return run

    def until_it_trains(self, run: str) -> None:
        while not self.json("status", run)["run"]["progress"]:
            pass

    def root(self, host: str) -> Path:
        return self.hosts[host].home / ".gpurun"

    def folder(self, host: str, run: str) -> Path:
        return self.root(host) / "runs" / run

    def events(self, host: str, run: str) -> list[str]:
        journal = self.folder(host, run) / "events.jsonl"
        return [json.loads(line)["event"] for line in journal.read_text().splitlines()] if journal.exists() else []

    def attempts(self, run: str) -> int:
        """How many attempts all hosts together have begun behind the first."""
        return sum(self.events(host, run).count("attempt") for host in self.hosts)

    def out_of_reach(self, host: str) -> None:
        """The network between laptop and host breaks; the host, and what runs there, goes on."""
        self.config.write_text(self.config.read_text().replace(f"Port {self.hosts[host].port}\n", "Port 9\n"))
        self.hosts[host].hang_up()

    def with_trap(self, code: str) -> None:
        """From now on each gpurun of this laptop runs `code` first."""
        trap = self.directory / "trap"
        trap.mkdir(exist_ok=True)
        (trap / "sitecustomize.py").write_text(code)
        self.environment["PYTHONPATH"] = f"{trap}:{REPOSITORY}"

    def without_trap(self) -> None:
        self.environment["PYTHONPATH"] = str(REPOSITORY)


@contextmanager
def laptop_and_hosts(
    *names: str, aliases: Mapping[str, str] | None = None, python3: str | None = None
) -> Iterator[LaptopAndHosts]:
    """A laptop and hosts of these names; `aliases` are second names. `python3` is what stands for it on each host."""
    directory = Path(tempfile.mkdtemp(prefix="gl-", dir="/tmp"))  # short: there are sockets below it
    home, runtime, project = directory / "home", directory / "run", directory / "vision"
    for folder in (home, project):
        folder.mkdir()
    runtime.mkdir(mode=0o700)
    (project / "train.py").write_text(TRAINER)
    (project / "gpurun.toml").write_text('runtime = "bare"\ngpus = 0\n')
    known = home / ".config/gpurun/hosts.toml"
    known.parent.mkdir(parents=True)
    known.write_text("".join(f"[hosts.{name}]\n" for name in names))
    config = directory / "ssh_config"
    ssh = ["ssh", "-F", str(config)]
    environment = laptops.environment(home, runtime, ssh, columns=200)
    laptop = LaptopAndHosts(home, project, environment)
    laptop.hosts, laptop.config, laptop.directory = {}, config, directory
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        for name in names:
            laptop.hosts[name] = stack.enter_context(_host(directory, name, python3))
        told = [(name, name) for name in names] + list((aliases or {}).items())
        config.write_text(
            "".join(
                laptop.hosts[name].ssh_config.read_text().replace("Host demo", f"Host {alias}", 1)
                for alias, name in told
            )
        )
        for alias, _ in told:
            stack.callback(subprocess.run, [*ssh, "-O", "exit", alias], capture_output=True, check=False)
        yield laptop


def _host(directory: Path, name: str, python3: str | None) -> EmbeddedHost:
    facts = {"MACHINE": "machine-id", "BOOT": "boot"}
    more = {}
    for key, file in facts.items():
        (directory / f"{file}-{name}").write_text((file[0] + name) * 16)
        more[f"GPURUN_{key}_ID_FILE"] = str(directory / f"{file}-{name}")
    if python3 is not None:
        programs = directory / f"bin-{name}"
        programs.mkdir()
        (programs / "python3").write_text(python3)
        (programs / "python3").chmod(0o755)
        more["PATH"] = f"{programs}:{os.environ['PATH']}"
    return EmbeddedHost(directory / f"s-{name}", environment=more)
