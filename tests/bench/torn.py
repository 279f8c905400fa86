"""A checkpoint that is rewritten 1,000 times while it is fetched: no fetch may ever bring a torn one."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from tests.bench.place import Place

REWRITES = 1000

# Every version is a zip, as torch.save's is; it is written in place, as torch.save does it.
SAVE = """\
import hashlib, io, os, time, zipfile
print("ready", flush=True)
with open("versions", "a") as versions:
    for number in range({rewrites}):
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w") as archive:
            archive.writestr("data.pkl", os.urandom(4_000_000))
        versions.write(hashlib.sha256(memory.getvalue()).hexdigest() + "\\n")
        versions.flush()
        with open("last.ckpt", "wb") as file:
            data = memory.getvalue()
            for start in range(0, len(data), 1 << 18):
                file.write(data[start : start + (1 << 18)])
                time.sleep(0.001)
        time.sleep(0.05 if number % 10 else 1.0)
"""


def rewrite_while_fetching(place: Place) -> str:
    """What came of it, in a line."""
    (place.project / "save.py").write_text(SAVE.format(rewrites=REWRITES))
    laptop = place.laptop
    run = laptop.gpurun("submit", "save.py", "-H", "near", cwd=place.project, timeout=600).stdout.strip()
    to = laptop.home / "torn"
    seen: list[str] = []
    passes = 0
    while True:
        live = laptop.gpurun("status", run, "--json", cwd=place.project).json["run"]["live"]
        laptop.gpurun("fetch", run, "-o", str(to), cwd=place.project, timeout=300)
        passes += 1
        if (to / "last.ckpt").exists():
            seen.append(hashlib.sha256((to / "last.ckpt").read_bytes()).hexdigest())
        if not live:
            break
        time.sleep(0.2)
    good = set(_versions(place, run))
    torn = sum(one not in good for one in seen)
    return f"\n{REWRITES} rewrites, {passes} fetches, {len(set(seen))} versions came, {torn} of them torn"


def _versions(place: Place, run: str) -> list[str]:
    path = place.lab.gpu_host.home() / ".gpurun/runs" / run / "workspace/versions"
    return Path(path).read_text().split()
