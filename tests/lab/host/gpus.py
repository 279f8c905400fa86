"""What the fake nvidia-smi of a box answers."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.host.box import Box

FILES = Path(__file__).parent
PROGRAM = "usr/bin/nvidia-smi"
MIB = 81920
IDLE_MIB = 4


@dataclass
class Gpus:
    """Four idle GPUs unless told otherwise. Memory is in MiB, process ids are those in the box."""

    box: Box
    count: int = 4
    used: dict[int, int] = field(default_factory=dict)
    apps: list[tuple[int, int, str, int]] = field(default_factory=list)

    @property
    def uuids(self) -> list[str]:
        """The UUIDs by index: the same after a reboot, others on another host."""
        return [_uuid(self.box.name, index) for index in range(self.count)]

    def reset(self, count: int = 4) -> None:
        """`count` idle GPUs, an nvidia-smi that answers at once, and the hook that dockerd looks for."""
        self.count, self.used, self.apps = count, {}, []
        for mode in ("delay", "fail"):
            (self._state / mode).unlink(missing_ok=True)
        self.install()
        self._write()

    def install(self) -> None:
        """Put nvidia-smi and the container hook where a driver's installation has them."""
        shutil.copy(FILES / "nvidia-smi", self.box.root / PROGRAM)
        hook = self.box.root / "usr/bin/nvidia-container-runtime-hook"
        hook.write_text("#!/bin/sh\nexit 0\n")
        for program in (self.box.root / PROGRAM, hook):
            program.chmod(0o755)

    def use(self, index: int, pid: int, name: str = "python", mib: int = 2048) -> None:
        """Process `pid` computes on GPU `index` and holds `mib` of its memory."""
        self.apps.append((index, pid, name, mib))
        self._write()

    def hold(self, index: int, mib: int) -> None:
        """Memory is taken on GPU `index` by nobody that nvidia-smi can name."""
        self.used[index] = mib
        self._write()

    def free(self) -> None:
        """Nobody uses a GPU any more."""
        self.used, self.apps = {}, []
        self._write()

    def hang(self, seconds: float) -> None:
        """nvidia-smi answers after `seconds`."""
        (self._state / "delay").write_text(f"{seconds:g}")

    def fail(self) -> None:
        """nvidia-smi says that there is no driver."""
        said = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
        (self._state / "fail").write_text(
            said + "Make sure that the latest NVIDIA driver is installed and running.\n\n"
        )

    def uninstall(self) -> None:
        """There is no nvidia-smi on the host."""
        (self.box.root / PROGRAM).unlink(missing_ok=True)

    @property
    def _state(self) -> Path:
        return self.box.root / "run/lab"

    def _write(self) -> None:
        rows = []
        for index, uuid in enumerate(self.uuids):
            taken = IDLE_MIB + self.used.get(index, 0) + sum(mib for at, _, _, mib in self.apps if at == index)
            busy = 97 if any(at == index for at, *_ in self.apps) else 0
            row = [index, uuid, "NVIDIA A100-SXM4-80GB", MIB, taken, busy, "570.133.20", "8.0"]
            rows.append("|".join(map(str, [*row, f"00000000:{index + 1:02X}:00.0"])))
        apps = [f"{self.uuids[index]}|{pid}|{name}|{mib}" for index, pid, name, mib in self.apps]
        for file, lines in (("gpus", rows), ("apps", apps)):
            written = self._state / f"{file}.tmp"
            written.write_text("".join(f"{line}\n" for line in lines))
            written.rename(self._state / file)


def _uuid(host: str, index: int) -> str:
    digits = hashlib.sha256(f"{host} {index}".encode()).hexdigest()
    return f"GPU-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"
