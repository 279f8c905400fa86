"""`gpurun host check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gpurun.agent import vocabulary as words
from gpurun.cli import options, output
from gpurun.cli.asking import report, report_sum
from gpurun.cli.host.names import MaybeName
from gpurun.errors import UsageError

if TYPE_CHECKING:
    from gpurun.config.hosts import HostProfile
    from gpurun.hosts.check import CheckResult
    from gpurun.hosts.findings import Finding
    from gpurun.remote.wire import Wire

EXAMPLES = """\
gpurun host check box
gpurun host check box --gpu                (waits for all of its GPUs)
gpurun host check box --gpu -g 1 --image v2.11"""


def check(
    name: MaybeName = None,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Test the GPUs instead, with a short run in the container.")
    ] = False,
    gpus: Annotated[
        str | None,
        typer.Option("--gpus", "-g", metavar="N", help="With --gpu: number of GPUs. [all]", show_default=False),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option("--image", metavar="REF", help="With --gpu: the image. [v2.8]", show_default=False),
    ] = None,
    as_json: options.Json = False,
) -> int | None:
    """Check what a host needs for jobs. Each line says what was found and, below it, how to fix it.

    Exit code 0: jobs can run. 125: something must be fixed. 255: the host cannot be reached. 3: with --gpu, the host
    has no GPU.
    """
    from gpurun.config import hosts
    from gpurun.hosts import check as doctor
    from gpurun.remote.wire import connect

    host = hosts.choose(name)
    wire = connect(host)
    if gpu:
        return _check_gpus(wire, host, gpus, image, as_json=as_json)
    if gpus is not None or image is not None:
        raise UsageError("--gpus and --image are for --gpu", f"gpurun host check {host.name} --gpu")
    with output.activity() as say:

        def tell(finding: Finding) -> None:
            if not as_json:
                report(finding)
            say(f"checking {host.name}")

        say(f"checking {host.name}")
        result = doctor.check(wire, tell)
    if as_json:
        output.json(as_document(result))
    else:
        report_sum(result.findings)
    if result.failure is not None:
        return words.EXIT_UNREACHABLE
    return None if result.ok else words.EXIT_FAILED


def _check_gpus(wire: Wire, host: HostProfile, gpus: str | None, image: str | None, *, as_json: bool) -> int | None:
    from gpurun.cli.host import gpu_check
    from gpurun.hosts.verify import Wish

    if gpus not in (None, "all") and not (gpus.isdecimal() and int(gpus) > 0):
        raise UsageError(f"--gpus {gpus}: wants a number of GPUs, 1 or more, or all", "gpurun host check --gpu -g 1")
    return gpu_check.run(wire, host, Wish("all" if gpus in (None, "all") else int(gpus), image), as_json=as_json)


def as_document(result: CheckResult) -> dict[str, object]:
    answer = result.answer
    return {
        "host": result.host,
        "ok": result.ok,
        "reachable": result.answer is not None,
        "findings": list(result.findings),
        "facts": answer["facts"] if answer else None,
        "pythons": answer["pythons"] if answer else None,
        "disks": answer["disks"] if answer else None,
    }
