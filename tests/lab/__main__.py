"""The lab for trying things by hand: `make lab` brings it up and keeps it up until Ctrl-C."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from types import FrameType

from tests.lab.host.lab import Lab
from tests.lab.host.laptop import Laptop
from tests.lab.host.steps import LabError
from tests.lab.host.users import PASSWORD

USE = """\
The lab is up. In another terminal:

    source {environment}

gives you a laptop whose home is {home}. Its hosts:

{hosts}
Try `ssh ada nvidia-smi` or `gpurun submit train.py -H ada`. pat's password is "{password}".
Registry: {registry} with small:1. A root shell on the GPU host: nsenter -t {init} -m -u -p -r -w
Ctrl-C takes it all down."""


def main() -> int:
    """Keep a lab up until SIGINT or SIGTERM. Returns the exit code."""
    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    lab = Lab()
    try:
        lab.up()
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    try:
        with Laptop(lab) as laptop:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, end)
            print(_how_to_use(lab, laptop), flush=True)
            ended.wait()
    finally:
        lab.down()
    return 0


def _how_to_use(lab: Lab, laptop: Laptop) -> str:
    environment = laptop.home / "environment"
    exports = [f"export {name}={shlex.quote(value)}\n" for name, value in laptop.env.items() if name != "TERM"]
    environment.write_text("".join([*exports, 'cd "$HOME/work"\n']))
    hosts = ""
    for alias in lab.aliases:
        kind = "Docker, 4 GPUs" if alias.host.engine else "no engine, 4 GPUs, torch"
        hosts += f"    {alias.name:6} port {alias.host.sshd.port}  user {alias.user.name:12} {kind}\n"
    return USE.format(
        environment=environment,
        home=laptop.home,
        hosts=hosts,
        password=PASSWORD,
        registry=lab.registry.address,
        init=lab.gpu_host.box.init,
    )


if __name__ == "__main__":
    sys.exit(main())
