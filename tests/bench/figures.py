"""What is measured, each figure by hand and with gpurun, in turns, so that a busy moment of the machine hits both."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.bench.place import Place
from tests.lab.host.golden import BASE_IMAGE

REPEATS = 5
BIG = 1000  # MiB to fetch
Measure = Callable[[], float]


@dataclass
class Figure:
    """One line of the table: seconds, a column each."""

    name: str
    aim: str
    columns: dict[str, list[float]] = field(default_factory=dict)

    def median(self, column: str) -> float | None:
        return statistics.median(self.columns[column]) if self.columns.get(column) else None


HAND, MASTER, COLD, WARM = "by hand", "by hand, ControlMaster", "gpurun, cold", "gpurun, warm"
COLUMNS = (HAND, MASTER, COLD, WARM)


def measure(
    name: str, ways: dict[str, Measure], *, aim: str = "", repeats: int = REPEATS, warm_up: bool = True
) -> Figure:
    figure = Figure(name, aim, {column: [] for column in ways})
    for turn in range(-1 if warm_up else 0, repeats):
        for column, take in ways.items():
            seconds = take()
            if turn >= 0:
                figure.columns[column].append(seconds)
    return figure


def submit(place: Place, way: str) -> Figure:
    """Until the job's first line; 2,000 files, one of them changed."""
    count = [0]

    def by_hand(*, master: bool) -> float:
        place.change_a_file()
        count[0] += 1
        name = f"hand-{way}-{count[0]}"
        ssh = place.ssh(way, master=master)
        inside = (
            f"--gpus 1 -v $HOME/hand:/workspace -w /workspace --user $(id -u):$(id -g) {BASE_IMAGE} python3 train.py"
        )
        return place.seconds(
            place.rsync("-az", way, "--exclude=.git", "./", f"{way}:hand/", master=master),
            [*ssh, f"docker run -d --name {name} {inside}"],
            [*ssh, f"docker logs -f {name}"],
            first_line="ready",
        )

    def ours(*, cold: bool) -> float:
        place.change_a_file()
        if cold:
            place.forget_connections()
        return place.seconds(place.gpurun("submit", "train.py", "-H", way, "-f"), first_line="ready")

    aim = "warm: half of by hand, no more than with a ControlMaster"
    return measure("submit to first line", _four(by_hand, ours), aim=aim)


def status(place: Place, way: str) -> Figure:
    def by_hand(*, master: bool) -> float:
        return place.seconds([*place.ssh(way, master=master), "docker ps -a; nvidia-smi -L"])

    def ours(*, cold: bool) -> float:
        if cold:
            place.forget_connections()
        return place.seconds(place.gpurun("ps", "-H", way))

    return measure("ps", _four(by_hand, ours), aim="half of by hand")


def logs(place: Place, way: str, run: str) -> Figure:
    def by_hand(*, master: bool) -> float:
        return place.seconds([*place.ssh(way, master=master), f"docker logs hand-{way}-1"])

    def ours(*, cold: bool) -> float:
        if cold:
            place.forget_connections()
        return place.seconds(place.gpurun("logs", run))

    return measure("logs of a finished run", _four(by_hand, ours))


def fetch(place: Place, way: str, run: str, mib: int) -> Figure:
    """So much in one checkpoint, to an empty folder. A plain rsync sends it without comparing anything."""
    to = place.laptop.home / "fetched"

    def by_hand(*, master: bool) -> float:
        shutil.rmtree(to, ignore_errors=True)
        source = f"{way}:.gpurun/runs/{run}/workspace/model.ckpt"
        to.mkdir()
        return place.seconds(place.rsync("-a", way, source, str(to), master=master))

    def ours(*, cold: bool) -> float:
        if cold:
            place.forget_connections()
        shutil.rmtree(to, ignore_errors=True)
        return place.seconds(place.gpurun("fetch", run, "-o", str(to)))

    repeats = 3 if way == "near" else 2
    return measure(
        f"fetch of {mib} MiB", _four(by_hand, ours), aim="0.95 of rsync's rate", repeats=repeats, warm_up=False
    )


def help_text(place: Place) -> Figure:
    ways = {HAND: lambda: place.seconds(["rsync", "--help"]), WARM: lambda: place.seconds(place.gpurun("--help"))}
    return measure("gpurun --help (by hand: rsync's)", ways, aim="0.15 s", repeats=2 * REPEATS)


def _four(by_hand: Callable[..., float], ours: Callable[..., float]) -> dict[str, Measure]:
    return {
        HAND: lambda: by_hand(master=False),
        MASTER: lambda: by_hand(master=True),
        COLD: lambda: ours(cold=True),
        WARM: lambda: ours(cold=False),
    }
