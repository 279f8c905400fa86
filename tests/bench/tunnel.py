"""Compare a download through `gpurun tunnel` with one through plain `ssh -L`; measure the reconnection after 50 cuts."""

from __future__ import annotations

import statistics
import subprocess
import time

from tests.bench.place import Place
from tests.lab.host.steps import answers, free_port, until
from tests.lab.tunnels import SERVER, get, through_proxy, tunnel, until_answers
from tests.support.faultproxy import FaultProxy

MB = 200
REPEATS = 5
CUTS = 50
PORT = 18080


def rate(place: Place) -> str:
    """Return the rates in MB/s, measured in turn. The job runs without a container, so plain ssh reaches its port too."""
    project = place.laptop.project({"gpurun.toml": "", "page.py": SERVER}, name="page")
    run = place.laptop.gpurun(
        "submit", "page.py", "-H", "near", "-g", "0", "--runtime", "bare", "--", str(PORT), cwd=project
    )
    local = free_port()
    by_hand = [*place.ssh("near", master=False)[:-1], "-N", f"-L127.0.0.1:{local}:127.0.0.1:{PORT}", "near"]
    plain = subprocess.Popen(by_hand, env=place.laptop.env, stdin=subprocess.DEVNULL)
    try:
        until(lambda: answers(local), step="ssh -L by hand", seconds=20)
        with tunnel(place.laptop, run.stdout.strip(), "-p", f"{free_port()}:{PORT}", cwd=project) as opened:
            ours = opened.url(f"port {PORT}")
            hand = f"http://127.0.0.1:{local}/"
            until_answers(hand, 20)
            measured: dict[str, list[float]] = {hand: [], ours: []}
            for _ in range(REPEATS):
                for url, rates in measured.items():
                    began = time.monotonic()
                    get(f"{url}{MB * 1_000_000}", seconds=120)
                    rates.append(MB / (time.monotonic() - began))
    finally:
        plain.kill()
        plain.wait()
    by_hand_rate, our_rate = (statistics.median(rates) for rates in measured.values())
    return (
        f"\n{MB} MB through a tunnel   (aim: 0.95 of ssh -L)\n"
        f"  ssh -L {by_hand_rate:.0f} MB/s, gpurun tunnel {our_rate:.0f} MB/s: {our_rate / by_hand_rate:.2f} of it"
    )


def reconnect(place: Place) -> str:
    """Return the seconds from a reset connection to the first answer on the same port."""
    project = place.laptop.project({"gpurun.toml": "", "page.py": SERVER}, name="page")
    with through_proxy(place.laptop, place.lab.gpu_host, "far-off") as proxy:
        run = place.laptop.gpurun("submit", "page.py", "-H", "far-off", "-g", "0", "--", str(PORT), cwd=project)
        with tunnel(place.laptop, run.stdout.strip(), "-p", f"{free_port()}:{PORT}", cwd=project) as opened:
            taken = [_cut(proxy, opened.url(f"port {PORT}")) for _ in range(CUTS)]
    return (
        f"\n{CUTS} cuts of a tunnel   (aim: back within 5 s)\n"
        f"  median {statistics.median(taken):.2f} s, worst {max(taken):.2f} s"
    )


def _cut(proxy: FaultProxy, url: str) -> float:
    proxy.reset()
    return until_answers(url, 30)
