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
            help="[user@]host[:port], or the ssh command of a rental panel in quotes. [NAME is an SSH alias]",
            show_default=False,
        ),
    ] = None,
    identity: Annotated[
        str | None, typer.Option("--identity", "-i", metavar="FILE", help="The private key to use.")
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
            "--install-key/--no-install-key", help="Install your key when the host accepts none.", show_default=False
        ),
    ] = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> int | None:
    """Add a host and check it. A name that is known already gets the new address; its runs stay.

    Shows the key of the host before it is trusted, installs your SSH key if you agree (`host rm --revoke` removes it),
    proposes the disk with the most room, and starts to build the image in the background.
    """
    from gpurun.hosts import add as adding

    order = adding.Order(name, address, identity, root, accept_key, install_key)
    added = adding.add(order, Silent(yes) if as_json else Terminal(yes))
    if as_json:
        output.json({"name": name, "updated": added.updated, "image": added.warming, **as_document(added.result)})
        return None if added.result.ok else words.EXIT_FAILED
    output.say(f"{name} is {'updated' if added.updated else 'added'}")
    _tell_default(name)
    if added.warming:
        output.note("the image is being made ready there in the background")
    if not added.result.ok:
        output.say(f"fix what is marked FAIL, then check again: gpurun host check {name}")
        return words.EXIT_FAILED
    gpus = added.result.answer["facts"]["gpus"] if added.result.answer else []
    flags = "" if gpus else " --gpus 0"
    output.say("Your first job, from inside a project:")
    output.next_step(f"gpurun submit train.py{flags} -H {name} -f")
    return None


def _tell_default(name: str) -> None:
    """Say which host a command means that names none, where there are several."""
    from gpurun.config import hosts

    known = hosts.read()
    if known.default not in (None, name):
        output.note(f"the default host stays {known.default}; gpurun host use {name} changes that")
    elif known.default is None and len(known.hosts) > 1:
        output.note(f"no host is the default; gpurun host use {name} makes it {name}")
