"""`gpurun host prepare`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from gpurun.agent import vocabulary as words
from gpurun.cli import options, output
from gpurun.cli.building import Tail
from gpurun.cli.host.names import MaybeName
from gpurun.errors import ContactLost, GpurunError

EXAMPLES = """\
gpurun host prepare box
gpurun host prepare box --image v2.7
gpurun host prepare box --image nvcr.io/nvidia/pytorch:25.06-py3"""


def prepare(
    name: MaybeName = None,
    image: Annotated[
        str | None,
        typer.Option(
            "--image", metavar="REF", help="The image: v2.7, v2.8, v2.11, or any other. [v2.8]", show_default=False
        ),
    ] = None,
    as_json: options.Json = False,
) -> int | None:
    """Build or pull an image on a host, so that the first submit is quick.

    The host does it in the background: Ctrl-C does not stop it, and the same command shows how far it is.
    """
    from gpurun.config import hosts
    from gpurun.hosts import warm
    from gpurun.remote.wire import connect

    host = hosts.choose(name)
    tail = Tail()
    steps = warm.Steps()
    with output.activity(f"asking {host.name}"), output.steps(f"preparing {host.name}") as bar:

        def hear(data: bytes) -> None:
            tail.feed(data)
            steps.feed(data)
            bar(steps.fraction, steps.now, steps.step)

        try:
            made = warm.make_ready(connect(host), host, image, hear)
        except KeyboardInterrupt:
            output.after_interrupt()
            output.say(f"{host.name} goes on with it; the same line again shows how far it is")
            return words.EXIT_INTERRUPTED
        except ContactLost:
            raise
        except GpurunError:
            tail.show()
            raise
    if as_json:
        output.json({"host": host.name, **asdict(made)})
    elif made.image is None:
        output.say(f"{host.name} has no engine: jobs run in its own Python there, and no image is needed")
    else:
        took = f", made in {output.duration(made.seconds)}" if made.seconds >= 1 else ", it was there already"
        output.say(f"{made.image} is ready on {host.name}{took}")
    return None
