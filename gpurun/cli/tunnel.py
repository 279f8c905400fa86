"""`gpurun tunnel`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpurun.agent import vocabulary as words
from gpurun.cli import options, output
from gpurun.cli.command import VerbCommand
from gpurun.cli.reporting import drawn
from gpurun.errors import UsageError

if TYPE_CHECKING:
    from gpurun.tunnel.plan import TunnelOptions
    from gpurun.tunnel.registry import Tunnel


class CommandThatCloses(VerbCommand):
    """Explains where to find the ID that is missing after `--close`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        at = args.index("--close") + 1 if "--close" in args else 0
        if at and (at == len(args) or args[at].startswith("-")):
            raise UsageError(
                "--close needs the ID of a tunnel", "gpurun tunnel --list shows them; gpurun tunnel --all closes all"
            )
        rest: list[str] = super().parse_args(ctx, args)
        return rest


COMMAND = CommandThatCloses
EXAMPLES = """\
gpurun tunnel                    TensorBoard over this project's runs
gpurun tunnel --jupyter --open   Jupyter Lab beside the data, in your browser
gpurun tunnel train-7f3k -p 8080 port 8080 of that run
gpurun tunnel -d                 in the background; --list, --close ID"""


def tunnel(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="One run. [all runs of this project]", show_default=False),
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Open TensorBoard only.")] = False,
    jupyter: Annotated[
        bool, typer.Option("--jupyter", help="Open Jupyter Lab with the project's code, data and image.")
    ] = False,
    port: Annotated[
        list[str] | None,
        typer.Option("--port", "-p", metavar="[LOCAL:]REMOTE", help="Open a port of RUN, or of the host."),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option("--gpus", "-g", metavar="N", help="Number of GPUs for Jupyter. [1]", show_default=False),
    ] = None,
    host: options.Host = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the browser.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Stay open in the background.")] = False,
    list_them: Annotated[bool, typer.Option("--list", help="List the open tunnels.")] = False,
    close: Annotated[
        str | None, typer.Option("--close", metavar="ID", help="Close a tunnel.", show_default=False)
    ] = None,
    close_all: Annotated[bool, typer.Option("--all", help="Close all tunnels.")] = False,
    as_json: options.Json = False,
) -> int:
    """Open TensorBoard, Jupyter or a port of a run on this laptop, through SSH. Reconnects by itself.

    Without a service: TensorBoard over the project's runs, and the `ports` of its settings. Ctrl-C closes the tunnel; the
    services continue, and end by themselves when nobody has used them for a while.
    """
    from gpurun.tunnel.plan import TunnelOptions

    if list_them:
        return _list(as_json=as_json)
    if close is not None or close_all:
        return _close(close)
    tunnel_options = TunnelOptions(
        run, tensorboard=tensorboard, jupyter=jupyter, ports=tuple(port or ()), gpus=gpus, host=host
    )
    return _open(tunnel_options, open_browser=open_browser, detach=detach, as_json=as_json)


def _list(*, as_json: bool) -> int:
    from gpurun.tunnel import registry

    tunnels = registry.live()
    if as_json:
        output.json(tunnels)
        return 0
    if not tunnels:
        output.note("no tunnel is open")
        return 0
    _show(tunnels)
    return 0


def _show(tunnels: Sequence[Tunnel]) -> None:
    """Print a line for each URL. On a terminal that is too narrow, print the URLs below their tunnel, uncut."""
    header = ["TUNNEL", "HOST", "STATE", "WHAT", "WHERE"]
    urls = {tunnel.id: [(each.name, each.url) for each in tunnel.listeners] or [("opening", "")] for tunnel in tunnels}
    rows = [[tunnel.id, tunnel.host, tunnel.state, name, url] for tunnel in tunnels for name, url in urls[tunnel.id]]
    if not sys.stdout.isatty() or output.table_width(header, rows) <= output.width():
        output.table(header, rows)
        return
    longest = max(len(row[3]) for row in rows)
    for tunnel in tunnels:
        output.out(f"{output.styled(tunnel.id, output.BOLD, stream=sys.stdout)}  {tunnel.host}  {tunnel.state}")
        for name, url in urls[tunnel.id]:
            output.out(f"  {name.ljust(longest)}  {url}".rstrip())


def _close(tunnel_id: str | None) -> int:
    """Close that tunnel; all tunnels when there is no id."""
    from gpurun.tunnel import registry

    tunnels = [registry.resolve(tunnel_id)] if tunnel_id else registry.live()
    still_open = [tunnel.id for tunnel in tunnels if not registry.close(tunnel)]
    for tunnel in tunnels:
        if tunnel.id not in still_open:
            names = ", ".join(listener.name for listener in tunnel.listeners)
            output.note(f"closed {tunnel.id} ({names} on {tunnel.host})")
    if not tunnels:
        output.note("no tunnel is open")
    if still_open:
        output.warn(f"still open after {registry.CLOSE_TIMEOUT:g} s: {', '.join(still_open)}")
    return words.EXIT_FAILED if still_open else 0


def _open(tunnel_options: TunnelOptions, *, open_browser: bool, detach: bool, as_json: bool) -> int:
    from gpurun.cli.tunnel_shown import Shown, Starting, tell_planned
    from gpurun.tunnel import plan, services, session

    with drawn("sending") as report:
        try:
            made = plan.make(tunnel_options)
            host = made.wire.host
            report.on[services.Planned] = lambda event: tell_planned(event, host)
            routes = plan.start_services(made, report, Starting(host, report.say))
        except KeyboardInterrupt:
            output.after_interrupt()
            output.say("interrupted; services that were started on the host continue: gpurun ps")
            return words.EXIT_INTERRUPTED
    shown = Shown(routes, open_browser=open_browser, as_json=as_json, detached=detach)
    try:
        return session.run(routes, shown, detach=detach)
    except KeyboardInterrupt:
        output.after_interrupt()
        shown.closed()
        return words.EXIT_INTERRUPTED if as_json else 0
