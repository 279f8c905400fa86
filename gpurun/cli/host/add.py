"""`gpurun host add`."""

from __future__ import annotations

from typing import Annotated

import typer

from gpurun.agent import vocabulary as words
from gpurun.cli import options, output
from gpurun.cli.asking import Silent, Terminal
from gpurun.cli.host.check import as_document
from gpurun.cli.host.names import Name

EXAMPLES = """\
gpurun host add box ada@gpubox.example.org:2222
gpurun host add box "ssh -p 34567 root@1.2.3.4 -L 8080:localhost:8080"
gpurun host add mybox                      (an alias of ~/.ssh/config)"""


def add(
    name: Name,
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="[ADDRESS]",
            help="[user@]host[:port], or the whole ssh line of a rental panel in quotes; left out for an alias.",
            show_default=False,
        ),
    ] = None,
    identity: Annotated[
        str | None, typer.Option("--identity", "-i", metavar="FILE", help="The private key to offer.")
    ] = None,
    root: Annotated[
        str | None,
        typer.Option("--root", metavar="PATH", help="Keep gpurun's files in PATH/.gpurun there, not in ~/.gpurun."),
    ] = None,
    accept_key: Annotated[
        str | None,
        typer.Option("--accept-key", metavar="SHA256:...", help="Trust the host's key if it has this fingerprint."),
    ] = None,
    install_key: Annotated[
        bool | None,
        typer.Option(
            "--install-key/--no-install-key", help="Put your key there when none is let in.", show_default=False
        ),
    ] = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> int | None:
    """Let gpurun know a host, and check it. A name that is known already gets the new address; its runs stay.

    Shows the host's key before it is trusted, puts your own key there if you like (`host rm --revoke` takes it
    away), proposes the roomiest disk, and has the image made ready in the background.
    """
    from gpurun.hosts import add as adding

    order = adding.Order(name, address, identity, root, accept_key, install_key)
    added = adding.add(order, Silent(yes) if as_json else Terminal(yes))
    if as_json:
        output.json({"name": name, "updated": added.updated, "image": added.warming, **as_document(added.report)})
        return None if added.report.ok else words.EXIT_FAILED
    output.say(f"{name} is {'updated' if added.updated else 'added'}")
    if added.warming:
        output.note("the image is being made ready there in the background")
    if not added.report.ok:
        output.say(f"fix what is marked FAIL, then check again: gpurun host check {name}")
        return words.EXIT_FAILED
    gpus = (added.report.answer or {}).get("facts", {}).get("gpus") or []
    flags = "" if gpus else " --gpus 0"
    output.say("Your first job, from inside a project:")
    output.next_step(f"gpurun submit train.py{flags} -H {name} -f")
    return None
