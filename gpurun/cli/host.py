"""`gpurun host`: the machines with the GPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpurun.agent import vocabulary as words
from gpurun.cli import complete, options, output
from gpurun.cli.asking import Silent, Terminal, show
from gpurun.cli.command import VerbCommand, noun
from gpurun.errors import UsageError

if TYPE_CHECKING:
    from gpurun.config.hosts import Host
    from gpurun.hosts.check import Report
    from gpurun.hosts.leave import Left
    from gpurun.hosts.survey import Seen
    from gpurun.wire import Wire

app = noun("host", "The machines with the GPUs: any alias of your SSH configuration, and those that you add.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="What you call the host.", autocompletion=complete.hosts)]
MaybeName = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]", help="The default host unless given.", autocompletion=complete.hosts, show_default=False
    ),
]

ADD_EXAMPLES = """\
gpurun host add box ada@gpubox.example.org:2222
gpurun host add box "ssh -p 34567 root@1.2.3.4 -L 8080:localhost:8080"
gpurun host add mybox                      (an alias of ~/.ssh/config)"""


@app.command("add", cls=VerbCommand, epilog=ADD_EXAMPLES)
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
        str | None, typer.Option("--root", metavar="PATH", help="Where gpurun keeps its files there; ~/.gpurun.")
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
        output.say(f"mend what is marked FAIL, then look again: gpurun host check {name}")
        return words.EXIT_FAILED
    gpus = (added.report.answer or {}).get("facts", {}).get("gpus") or []
    flags = "" if gpus else " --gpus 0"
    output.say("Your first job, from inside a project:")
    output.next_step(f"gpurun submit train.py{flags} -H {name} -f")
    return None


@app.command("use", cls=VerbCommand)
def use(name: Name) -> None:
    """Make a host the one that is taken when a command names none."""
    from gpurun.config import hosts
    from gpurun.hosts.known import check_known

    check_known(name)
    hosts.use(name)
    output.say(f"{name} is the default host now")


@app.command("ls", cls=VerbCommand)
def ls(as_json: options.Json = False) -> None:
    """List the hosts that were added: GPUs, room on disk, queue. Each has 2 s to answer."""
    from gpurun.config import hosts
    from gpurun.hosts.survey import survey

    known = hosts.read()
    seen = survey(list(known.hosts.values()))
    if as_json:
        output.json([_seen_as_document(each, known.default) for each in seen])
        return
    if not seen:
        output.say("no host was added yet; any alias of your SSH configuration works with -H")
        output.next_step("gpurun host add NAME user@address")
        return
    rows = [_row(each, known.default) for each in seen]
    output.table(["HOST", "ADDRESS", "GPUS", "DISK FREE", "RUNS", "QUEUE"], rows, shrink=(2, 1))


def _row(seen: Seen, default: str | None) -> list[str]:
    address = seen.host.address
    where = "ssh alias"
    if address is not None:
        where = (
            (f"{address.user}@" if address.user else "") + address.host + (f":{address.port}" if address.port else "")
        )
    name = seen.host.name + (" *" if seen.host.name == default else "")
    if seen.answer is None:
        return [name, where, output.styled("no answer", output.YELLOW), "", "", ""]
    live = sum(record["live"] for record in seen.answer["runs"])
    return [
        name,
        where,
        seen.gpus,
        output.size(seen.answer["disk"]["free"]),
        str(live),
        str(len(seen.answer["queue"])),
    ]


def _seen_as_document(seen: Seen, default: str | None) -> dict[str, Any]:
    answer = seen.answer or {}
    return {
        "name": seen.host.name,
        "default": seen.host.name == default,
        "address": seen.host.address,
        "reachable": seen.answer is not None,
        "why": seen.failure.what if seen.failure else None,
        **{key: answer.get(key) for key in ("host_id", "hostname", "gpus", "disk", "queue")},
        "live": [record["id"] for record in answer.get("runs", []) if record["live"]],
    }


@app.command("rm", cls=VerbCommand)
def rm(
    name: Name,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take the key that `host add` put there away, too.")] = False,
    as_json: options.Json = False,
) -> None:
    """Forget a host. Its runs go on and stay there; `host leave` is the one that cleans up."""
    from gpurun.config import hosts
    from gpurun.hosts import leave

    if name not in hosts.read().hosts:
        raise UsageError(f"{name} was not added", "gpurun host ls")
    revoked = leave.revoke(name) if revoke else False
    hosts.remove(name)
    if as_json:
        output.json({"name": name, "revoked": revoked})
        return
    output.say(f"{name} is forgotten" + ("; its key is taken away there" if revoked else ""))
    if revoke and not revoked:
        output.say("no key that `host add` put there was found")


CHECK_EXAMPLES = """\
gpurun host check box
gpurun host check box --gpu                (waits for all of its GPUs)
gpurun host check box --gpu -g 1 --image v2.11"""


@app.command("check", cls=VerbCommand, epilog=CHECK_EXAMPLES)
def check(
    name: MaybeName = None,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Try its GPUs instead: a short run in the container, or the environment.")
    ] = False,
    gpus: Annotated[
        str | None, typer.Option("--gpus", "-g", metavar="N", help="With --gpu: how many. [all]", show_default=False)
    ] = None,
    image: Annotated[
        str | None,
        typer.Option("--image", metavar="REF", help="With --gpu: in which image. [v2.8]", show_default=False),
    ] = None,
    as_json: options.Json = False,
) -> int | None:
    """Examine a host like a doctor: each line says what was found, and how to mend it.

    Ends with 0 when jobs can run, 125 when something must be mended, 255 when the host is out of reach; with --gpu
    also with 3 when the host has no GPU.
    """
    from gpurun.config import hosts
    from gpurun.hosts import check as doctor
    from gpurun.wire import connect

    host = hosts.choose(name)
    wire = connect(host)
    if gpu:
        return _check_gpus(wire, host, gpus, image, as_json=as_json)
    if gpus is not None or image is not None:
        raise UsageError("--gpus and --image are for --gpu", f"gpurun host check {host.name} --gpu")
    if as_json:
        report = doctor.check(wire)
        output.json(as_document(report))
    else:
        report = doctor.check(wire, show)
    if report.failure is not None:
        return words.EXIT_UNREACHABLE
    return None if report.ok else words.EXIT_FAILED


def _check_gpus(wire: Wire, host: Host, gpus: str | None, image: str | None, *, as_json: bool) -> int | None:
    from gpurun.cli import gpu_check
    from gpurun.hosts.verify import Wish

    if gpus not in (None, "all") and not (gpus.isdecimal() and int(gpus) > 0):
        raise UsageError(f"--gpus {gpus}: wants a number of GPUs, 1 or more, or all", "gpurun host check --gpu -g 1")
    return gpu_check.run(wire, host, Wish(gpus or "all", image), as_json=as_json)


PREPARE_EXAMPLES = """\
gpurun host prepare box
gpurun host prepare box --image v2.7
gpurun host prepare box --image nvcr.io/nvidia/pytorch:25.06-py3"""


@app.command("prepare", cls=VerbCommand, epilog=PREPARE_EXAMPLES)
def prepare(
    name: MaybeName = None,
    image: Annotated[
        str | None,
        typer.Option("--image", metavar="REF", help="v2.7, v2.8, v2.11 or any image. [v2.8]", show_default=False),
    ] = None,
    as_json: options.Json = False,
) -> int | None:
    """Build or pull an image on a host ahead of time, so that the first submit is quick.

    It is made in the background there: Ctrl-C leaves it at work, and the same line again shows how far it is.
    """
    from gpurun.config import hosts
    from gpurun.hosts import ready
    from gpurun.wire import connect

    host = hosts.choose(name)
    steps = ready.Steps()
    with output.activity(f"asking {host.name}"), output.steps(f"preparing {host.name}") as bar:

        def hear(data: bytes) -> None:
            steps.feed(data)
            bar(steps.fraction, steps.now, data)

        try:
            made = ready.make_ready(connect(host), host, image, hear)
        except KeyboardInterrupt:
            output.after_interrupt()
            output.say(f"{host.name} goes on with it; the same line again shows how far it is")
            return words.EXIT_INTERRUPTED
    if as_json:
        output.json({"host": host.name, **asdict(made)})
    elif made.image is None:
        output.say(f"{host.name} has no engine: jobs run in its own Python there, and no image is needed")
    else:
        took = f", made in {output.duration(made.seconds)}" if made.seconds >= 1 else ", it was there already"
        output.say(f"{made.image} is ready on {host.name}{took}")
    return None


def as_document(report: Report) -> dict[str, Any]:
    answer = report.answer or {}
    return {
        "host": report.host,
        "ok": report.ok,
        "reachable": report.answer is not None,
        "findings": list(report.findings),
        "facts": answer.get("facts"),
        "pythons": answer.get("pythons"),
        "disks": answer.get("disks"),
    }


@app.command("leave", cls=VerbCommand)
def leave(
    name: Name,
    stop: Annotated[bool, typer.Option("--stop", help="End the runs that are live there, with their grace.")] = False,
    fetch: Annotated[bool, typer.Option("--fetch/--no-fetch", help="Bring home what was never fetched.")] = True,
    keep_data: Annotated[bool, typer.Option("--keep-data", help="Leave the data folders (gpurun push) there.")] = False,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Give a box back: fetch what was never fetched, then remove runs, caches, secrets, keys and the agent there."""
    from gpurun.config import hosts
    from gpurun.hosts import leave as leaving
    from gpurun.wire import connect

    wire = connect(hosts.read().get(name))
    with output.activity(f"asking {name}") as say:
        plan = _without_live(wire, stop=stop, say=say)
        data = [] if keep_data else leaving.data_folders(wire)
    if plan.unfetched and fetch:
        _bring_home(wire, plan.unfetched, yes=yes)
    elif plan.unfetched:
        question = f"{', '.join(plan.unfetched)} was never fetched. Give it up?"
        output.confirm(question, yes=yes, otherwise="leave out --no-fetch, or add -y")
    if data:
        question = f"The data folders {', '.join(data)} go, too. Remove them?"
        output.confirm(question, yes=yes, otherwise="--keep-data leaves them there, -y removes them")
    with output.activity(f"removing everything of gpurun's from {name}"):
        left = leaving.wipe(wire, plan.all, keep_data=keep_data)
    if as_json:
        output.json(left)
    else:
        _tell_left(name, left, plan_data=keep_data)


def _without_live(wire: Wire, *, stop: bool, say: Callable[[str], None]) -> Any:
    from gpurun.hosts import leave as leaving

    plan = leaving.look(wire)
    if plan.live and stop:
        leaving.stop(wire, plan.live, say)
        plan = leaving.look(wire)
    leaving.refuse_live(wire, plan)
    return plan


def _bring_home(wire: Wire, runs: tuple[str, ...], *, yes: bool) -> None:
    from gpurun import index
    from gpurun.cli.fetch import bring, bring_left
    from gpurun.hosts import leave as leaving

    entries = [entry for entry in map(index.find, runs) if entry is not None]
    found = [bring_left(entry, wire.host, yes=yes) for entry in entries if wire.host in entry.left_on]
    found += bring([entry for entry in entries if wire.host not in entry.left_on], yes=yes)
    whole = {fetched.run for fetched in found if fetched is not None and fetched.whole}
    leaving.refuse_unfetched(wire, [run for run in runs if run not in whole])


def _tell_left(name: str, left: Left, *, plan_data: bool) -> None:
    output.say(f"removed {output.plural(len(left.removed), 'run')}, caches, secrets and the agent from {name}")
    if left.revoked:
        output.say("the key that `host add` put there is taken away")
    if left.data and plan_data:
        output.say(f"kept there: data/{', data/'.join(left.data)}")
    if left.shared:
        output.say("another machine shares that home, so its runs, the agent and the caches stay")
    if left.remains:
        output.warn(f"these could not be removed (another user made them): {', '.join(left.remains[:5])}")
        return
    output.say(f"{name} can be given back")
