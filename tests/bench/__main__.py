"""`python -m tests.bench [help submit ps logs fetch torn tunnel] [near far] [MIB]`: prints a table; nothing is asserted.

MIB: how much is fetched (default: 1000). `python -m tests.bench stops [COUNT]` needs no host (default: 200 stops).
`python -m tests.bench faults [PERCENT]` injects faults at random moments and exits with 1 if one of them lost a run,
doubled one or made gpurun show a wrong state. PERCENT of the full number of tries (default: 100, which takes about 90 minutes).
"""

from __future__ import annotations

import json
import sys
import time

from tests.bench import figures, stops, torn, tunnel
from tests.bench.place import WAYS, Place, up
from tests.lab import faults

STOPS = 200
# Tries of each kind of fault.
KILLS, RACES, DEATHS = 300, 100, 60


def main(words: list[str]) -> int:
    if words[:1] == ["stops"]:
        for line in stops.measure(int(words[1]) if len(words) > 1 else STOPS, seed=int(time.time())):
            print("\n" + line, flush=True)
        return 0
    if words[:1] == ["faults"]:
        return inject_faults(int(words[1]) if len(words) > 1 else 100)
    known = ["help", "submit", "ps", "logs", "fetch", "torn", "tunnel"]
    mib = next((int(word) for word in words if word.isdigit()), figures.BIG)
    unknown = [word for word in words if word not in (*known, *WAYS) and not word.isdigit()]
    if unknown:
        print(f"not known: {', '.join(unknown)}; known: {', '.join((*known, *WAYS))}", file=sys.stderr)
        return 2
    wanted = [word for word in words if word in known] or known
    with up() as place:
        if "help" in wanted:
            show(figures.help_text(place), "")
        for way in [word for word in words if word in WAYS] or list(WAYS):
            measure_way(place, way, wanted, mib)
        if "torn" in wanted:
            print(torn.rewrite_while_fetching(place), flush=True)
        if "tunnel" in wanted:
            print(tunnel.rate(place), tunnel.reconnect(place), sep="\n", flush=True)
    return 0


def inject_faults(percent: int) -> int:
    seed = int(time.time())
    kills, races, deaths = (max(1, tries * percent // 100) for tries in (KILLS, RACES, DEATHS))
    with up() as place:
        hosts = (place.lab.gpu_host, place.lab.bare_host)
        tallies = faults.inject(place.laptop, hosts, kills=kills, races=races, deaths=deaths, seed=seed)
    print(f"\nfaults at random moments (seed {seed})", *tallies, sep="\n", flush=True)
    return 0 if all(tally.clean for tally in tallies) else 1


def measure_way(place: Place, way: str, wanted: list[str], mib: int) -> None:
    if not {"submit", "logs", "ps", "fetch"} & set(wanted):
        return
    size = str(mib) if "fetch" in wanted else "1"
    print(f"... a run on {way} that writes {size} MiB", file=sys.stderr, flush=True)
    told = place.laptop.gpurun(
        "submit", "train.py", "-H", way, "-f", "--json", "--", size, cwd=place.project, timeout=1200
    )
    run = json.loads(told.stdout)["id"]
    if "submit" in wanted or "logs" in wanted:
        show(figures.submit(place, way), way)
    if "ps" in wanted:
        show(figures.status(place, way), way)
    if "logs" in wanted:
        show(figures.logs(place, way, run), way)
    if "fetch" in wanted:
        show(figures.fetch(place, way, run, mib), way)


def show(figure: figures.Figure, way: str) -> None:
    where = f", {WAYS[way]}" if way else ""
    print(f"\n{figure.name}{where}" + (f"   (aim: {figure.aim})" if figure.aim else ""))
    for column in figures.COLUMNS:
        middle = figure.median(column)
        if middle is not None:
            spread = figure.columns[column]
            print(f"  {column:24} {middle:8.2f} s   ({min(spread):.2f} to {max(spread):.2f}, {len(spread)} times)")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
