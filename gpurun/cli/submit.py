"""`gpurun submit`."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpurun.agent import vocabulary as words
from gpurun.cli import complete, describe, options, output, plan_shown
from gpurun.cli.own_arguments import KEY, CommandWithArguments
from gpurun.cli.progress import Say
from gpurun.cli.reporting import drawn
from gpurun.cli.screen import Screen, say_detached, say_end
from gpurun.errors import UsageError
from gpurun.remote import records

if TYPE_CHECKING:
    from gpurun.commands.submit import Started
    from gpurun.config.load import Loaded
    from gpurun.remote.wire import Wire

COMMAND = CommandWithArguments
EXAMPLES = """\
gpurun submit train.py
gpurun submit train.py --gpus 2 -f -- --lr 1e-3 --epochs 20
gpurun submit -m vision.train -H box --max-duration 12h
gpurun submit jobs/digits.toml --dry-run
gpurun submit train.ipynb -f
gpurun submit jupyter-7f3k:train.ipynb     from a Jupyter session on the host"""

RESOURCES, SETTING, AFTER = "Resources", "Environment", "After the start"


def submit(
    ctx: typer.Context,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="SCRIPT|JOBFILE",
            help="A .py, an .ipynb, a .sh or an executable of the project, or a job file (.toml).",
            autocompletion=complete.scripts,
            show_default=False,
        ),
    ] = None,
    module: Annotated[
        str | None, typer.Option("-m", "--module", metavar="MODULE", help="Run a module, as python -m does.")
    ] = None,
    host: options.Host = None,
    gpus: Annotated[
        str | None,
        typer.Option("--gpus", "-g", metavar="N", help="Number of GPUs, or all. [1]", rich_help_panel=RESOURCES),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", "-n", metavar="NAME", help="Name of the run. [the name of the script]")
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            metavar="REF",
            help="Container image: v2.7, v2.8, v2.11, or any other. [v2.8]",
            rich_help_panel=SETTING,
        ),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            metavar="docker|bare",
            help="Use a container or not. [what the host has]",
            rich_help_panel=SETTING,
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option("--memory", metavar="SIZE", help="Memory limit, e.g. 32GB.", rich_help_panel=RESOURCES),
    ] = None,
    cpus: Annotated[
        str | None, typer.Option("--cpus", metavar="N", help="CPU limit, e.g. 8 or 1.5.", rich_help_panel=RESOURCES)
    ] = None,
    shm_size: Annotated[
        str | None,
        typer.Option(
            "--shm-size",
            metavar="SIZE",
            help="Shared memory for DataLoader workers. [half of the memory]",
            rich_help_panel=RESOURCES,
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            "-e",
            metavar="K[=V]",
            help="Set an environment variable; K alone copies it from your shell.",
            rich_help_panel=SETTING,
        ),
    ] = None,
    env_file: Annotated[
        str | None,
        typer.Option(
            "--env-file", metavar="FILE", help="Read variables from a file with lines K=V.", rich_help_panel=SETTING
        ),
    ] = None,
    mount: Annotated[
        list[str] | None,
        typer.Option("--mount", metavar="SRC:DST[:ro]", help="Mount a path of the host.", rich_help_panel=SETTING),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="NAME",
            help="Mount data from `gpurun push` at /data/NAME and as $GPURUN_DATA.",
            autocompletion=complete.data,
            rich_help_panel=SETTING,
        ),
    ] = None,
    max_duration: Annotated[
        str | None,
        typer.Option(
            "--max-duration",
            metavar="SPAN",
            help="Time limit of the run with its retries, e.g. 12h.",
            rich_help_panel=RESOURCES,
        ),
    ] = None,
    retries: Annotated[
        str | None,
        typer.Option("--retries", metavar="N", help="Restart up to N times after a crash. [0]", rich_help_panel=AFTER),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Follow the log; exit with the job's exit code.", rich_help_panel=AFTER),
    ] = False,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="With -f: fetch the results when the job has ended.", rich_help_panel=AFTER)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent and run; change nothing.")
    ] = False,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> int:
    """Send the project to a host and start a script there, in the project's root.

    Prints the id of the run on stdout. The job continues when this laptop is closed.
    """
    if target is not None and module is not None:
        raise UsageError(f"{target} and -m {module} are two things to run", f"leave one out: gpurun submit -m {module}")
    if target is None and module is None:
        raise UsageError("name a script, a job file or -m MODULE", "gpurun submit train.py, or gpurun submit --help")
    said = {
        "module": module, "gpus": gpus, "name": name, "image": image, "runtime": runtime, "memory": memory,
        "cpus": cpus, "shm_size": shm_size, "env": env or None, "env_file": env_file, "mounts": mount or None, "data": data or None,
        "max_duration": max_duration, "retries": retries, "host": host, "args": ctx.meta.get(KEY), "fetch": fetch or None,
    }  # fmt: skip
    if fetch and not follow and not dry_run:
        raise UsageError("--fetch waits for the run's end, so it wants -f", "add -f, or fetch later: gpurun fetch")
    with _loaded(said, target) as loaded:
        if dry_run:
            return plan_shown.show(loaded, as_json=as_json)
        return _submit(loaded, follow=follow, yes=yes, as_json=as_json)


@contextlib.contextmanager
def _loaded(said: dict[str, Any], target: str | None) -> Iterator[Loaded]:
    """Read the configuration. RUN:train.ipynb is fetched from its session first, into a folder that lasts as long as the block."""
    from gpurun.config.load import load

    if target is None or not _is_in_a_session(target):
        yield load(said, target)
        return
    import tempfile

    from gpurun.commands import notebook_session

    with tempfile.TemporaryDirectory(prefix="gpurun-") as folder:
        with output.activity() as say:
            say(f"bringing {target}")
            found = notebook_session.bring(target, Path(folder))
        said = {**said, "host": said["host"] or found.host, "script": found.notebook}
        yield replace(load(said, None, found.project_root), session=found)


def _is_in_a_session(target: str) -> bool:
    if ":" not in target or not target.endswith(".ipynb"):
        return False
    from gpurun.commands import notebook_session

    return notebook_session.is_meant(target, Path.cwd())


def _submit(loaded: Loaded, *, follow: bool, yes: bool, as_json: bool) -> int:
    from gpurun.commands.submit import Begun, Prepared, make_plan
    from gpurun.commands.submit import submit as start
    from gpurun.remote.wire import connect
    from gpurun.sync import rsync

    assert loaded.host is not None
    wire = connect(loaded.host)
    if not (wire.connection.is_warm or loaded.host.added):
        from gpurun.ssh.diagnose import check_name

        check_name(wire.connection)
    rsync.check_local()
    with wire.begin("prepare"), drawn(f"sending to {wire.host}") as report:
        plan = make_plan(loaded)
        # ssh may ask for a password next: our own questions come before that, not at the same time.
        plan_shown.tell(plan, wire.host, yes=yes)
        if not wire.connection.is_warm:
            output.note(f"connecting to {wire.host}")
        report.on[Prepared] = lambda event: plan_shown.tell_prepared(event.answer)
        report.on[Begun] = lambda event: tell_started(wire, event.started, report.say, follow=follow, as_json=as_json)
        try:
            started = start(wire, plan, report, follow=follow)
        except KeyboardInterrupt:
            output.after_interrupt()
            known = [event.answer["run"]["id"] for event in (report.last.get(Prepared),) if event is not None]
            output.say("interrupted. " + "".join(f"{wire.host} may start {run} all the same. " for run in known))
            again = (shlex.join(["gpurun", *sys.argv[1:]]), "goes on from here")
            output.next_steps(again, *((f"gpurun stop {run}", "give it up") for run in known))
            return words.EXIT_INTERRUPTED
        return after_start(wire, started, report.say, follow=follow, as_json=as_json)


def tell_started(wire: Wire, started: Started, say: Say, *, follow: bool, as_json: bool) -> None:
    """Tell which run it is; with both `follow` and `as_json` that waits for the run's end."""
    say("")
    record = started.record
    if started.earlier:
        ended = f", and {describe.outcome(record)}" if words.is_over(record) else ""
        output.note(f"{record['id']} had been started by the submit that this one repeats{ended}")
    if not as_json:
        output.out(record["id"])
    elif not follow:
        output.json({**record, "host": wire.host})


def after_start(wire: Wire, started: Started, say: Say, *, follow: bool, as_json: bool) -> int:
    """With `follow` show the run's log, else say what to do next; the exit code."""
    if follow:
        return _follow(wire, started, say, as_json=as_json)
    run = started.record["id"]
    if started.record["reason"] == "start" and not started.earlier:  # the host could not even begin with it
        say_end(started.record, fetches=False)
        return words.EXIT_FAILED
    if started.stream is not None:
        try:
            _hold_until_running(wire, started, say)
        except KeyboardInterrupt:
            output.after_interrupt()
            output.warn("without your SSH agent its dependencies over git+ssh cannot be installed")
            say_detached(run, wire.host)
            return words.EXIT_INTERRUPTED
    if sys.stdout.isatty() and not as_json:
        output.next_steps((f"gpurun logs -f {run}", "follow it"), ("gpurun ps", "all live runs"))
    return 0


def _hold_until_running(wire: Wire, started: Started, say: Say) -> None:
    """Stay until the dependencies are installed: some come over git+ssh with this laptop's SSH agent."""
    from gpurun.commands.follow import show_log

    say("lending the host your SSH agent for the dependencies")
    over = (words.RUNNING, *words.ENDS)
    show_log(
        wire,
        {"run": started.record["id"], "follow": True},
        Screen(wire.host, say, log_to_stderr=True),
        stream=started.stream,
        until=lambda record: record["state"] in over,
    )


def _follow(wire: Wire, started: Started, say: Say, *, as_json: bool) -> int:
    from gpurun.commands.follow import show_log

    run = started.record["id"]
    screen = Screen(wire.host, say, log_to_stderr=as_json)
    try:
        record = show_log(wire, {"run": run, "follow": True}, screen, stream=started.stream)
    except KeyboardInterrupt:
        output.after_interrupt()
        say_detached(run, wire.host)
        return words.EXIT_INTERRUPTED
    screen.fresh_line()
    say_end(record, fetches=started.fetch)
    if as_json:
        output.json({**record, "host": wire.host})
    if started.fetch:
        _fetch(run)
    code = records.exit_code(record)
    return words.EXIT_FAILED if code is None else code


def _fetch(run: str) -> None:
    """What --fetch asks for. The log has stdout for itself, so the folder is told on stderr."""
    from gpurun.cli.fetch import bring
    from gpurun.commands import runs

    results = bring([runs.resolve(run)], yes=True)
    if any(fetched.hook for fetched in results):  # what on_end makes of the results is asked for, too
        results = bring([runs.resolve(run)], yes=True, watch=True)
    for fetched in results:
        output.say(f"  in {fetched.to}")
