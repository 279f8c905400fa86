"""`host ls`: what each known host has and does, asked side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpurun.config.hosts import HostProfile
from gpurun.errors import GpurunError

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import PsAnswer

PATIENCE = 2.0  # seconds for each host


@dataclass(frozen=True)
class Seen:
    """A host's answer to `ps`, or why there is none."""

    host: HostProfile
    answer: PsAnswer | None
    failure: GpurunError | None

    @property
    def gpus(self) -> str:
        """Such as `2 of 4 free, 4x NVIDIA H100`."""
        found = self.answer["gpus"] if self.answer else []
        if not found:
            return (self.answer.get("gpu_error") if self.answer else None) or "none"
        names = [gpu["name"] for gpu in found]
        free = sum(gpu["used_by"] is None for gpu in found)
        return f"{free} of {len(found)} free, " + ", ".join(f"{names.count(n)}x {n}" for n in dict.fromkeys(names))


def survey(which: list[HostProfile]) -> list[Seen]:
    """Never raises for a host that does not answer."""

    def ask(host: HostProfile) -> Seen:
        from gpurun.remote.wire import connect

        try:
            answer = connect(host, interactive=False).ask(
                "ps", {"all": False, "ids": None, "gpus": True}, within=PATIENCE
            )
        except GpurunError as error:
            return Seen(host, None, error)
        return Seen(host, answer, None)

    with ThreadPoolExecutor(max_workers=max(1, len(which))) as pool:
        return list(pool.map(ask, which))
