"""The engine data and the registry that every slot of the lab starts from."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

from tests.lab.host import cache, steps
from tests.lab.host.box import Box
from tests.lab.host.cache import Roots, say
from tests.lab.host.engine import Engine
from tests.lab.host.gpus import Gpus
from tests.lab.host.registry import STORAGE, Registry
from tests.lab.host.steps import LabError

BASE_IMAGE = "gpurun-lab/pytorch:2.8.0"
UNTRUSTING = "gpurun-lab/pytorch-untrusting:2.8.0"
LABEL = "gpurun-lab.trust"
MINUTES = 30


def golden(roots: Roots) -> Path:
    """A folder with `docker` (an engine's data) and `registry`; made by recipes/images.sh the first time."""
    recipe = (cache.RECIPES / "images.sh").read_bytes()
    made = cache.directory() / f"engine-{cache.digest(roots.key, recipe.decode())}"
    with cache.locked(cache.directory() / "build.lock"):
        if not made.exists():
            say("importing the images into an engine, once")
            unfinished = made.with_name(f"{made.name}.tmp")
            if unfinished.exists():
                shutil.rmtree(unfinished)
            _fill(unfinished, roots, recipe)
            unfinished.rename(made)
    return made


def _fill(folder: Path, roots: Roots, recipe: bytes) -> None:
    binds = {folder / "docker": "/var/lib/docker", folder / "registry": STORAGE}
    binds |= {roots.debian: "/lab/debian", roots.torch: "/lab/torch"}
    box = Box(folder / "machine", "golden", [roots.host], binds)
    engine, registry = Engine(box), Registry(box, steps.free_port())
    try:
        box.up()
        Gpus(box).reset()
        engine.start()
        registry.start()
        box.run("sh", "-s", registry.address, stdin=recipe, timeout=MINUTES * 60)
        engine.stop()
    finally:
        box.down()
    shutil.rmtree(folder / "machine")


def make_base_image(engine: Engine) -> None:
    """Tag BASE_IMAGE: PyTorch's stand-in, with the certificates that this machine needs to reach a package index."""
    trust = cache.trust()
    files = {name: (trust / name).read_bytes() for name in ("ca-certificates.crt", "pip.conf")}
    key = cache.digest(*(content.decode(errors="replace") for content in files.values()))
    ask = ["image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', BASE_IMAGE]
    try:
        if engine.docker(*ask).strip() == key:
            return
    except LabError:
        pass  # there is no such image yet
    dockerfile = (
        f"FROM {UNTRUSTING}\nCOPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt\n"
        f"COPY pip.conf /etc/pip.conf\nLABEL {LABEL}={key}\n"
    )
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, content in {"Dockerfile": dockerfile.encode(), **files}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    engine.docker("build", "--tag", BASE_IMAGE, "-", stdin=context.getvalue())
