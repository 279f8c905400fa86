"""TensorBoard over the runs of a project, on a Unix socket and nothing else."""

import json
import os
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterable

from told import fresh_socket, only_installed, told

LOOK_EVERY = 2.0  # seconds between two looks for new runs
RELOAD_EVERY = 5  # seconds between two readings of the event files


class Idle:
    """When somebody last asked for something."""

    def __init__(self, allowed: float) -> None:
        self.allowed = allowed
        self.last = time.monotonic()

    def counting(self, app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        """`app`, whose requests count as use."""

        def counted(environ: Dict[str, Any], start_response: Any) -> Iterable[bytes]:
            self.last = time.monotonic()
            return app(environ, start_response)

        return counted

    @property
    def over(self) -> bool:
        return time.monotonic() > self.last + self.allowed


def link_runs(folder: str, service: Dict[str, Any]) -> None:
    """Make `folder` hold a link to each run's workspace, under the run's id; one that was removed loses its link."""
    wanted = {run: os.path.join(service["runs"], run, "workspace") for run in wanted_runs(service)}
    for name in os.listdir(folder):
        if name not in wanted:
            os.unlink(os.path.join(folder, name))
    for name, workspace in wanted.items():
        link = os.path.join(folder, name)
        if not os.path.lexists(link) and os.path.isdir(workspace):
            os.symlink(workspace, link)


def wanted_runs(service: Dict[str, Any]) -> Iterable[str]:
    """The one run that was named, or all of the project but its own TensorBoards."""
    if service["run"] is not None:
        return [service["run"]]
    return [name for name in os.listdir(service["runs"]) if belongs(service, name)]


def belongs(service: Dict[str, Any], name: str) -> bool:
    try:
        with open(os.path.join(service["runs"], name, "job.json")) as file:
            job = json.load(file)
    except (OSError, ValueError):  # being made or removed
        return False
    kind = (job.get("service") or {}).get("kind")
    return job.get("project", {}).get("name") == service["project"] and kind != "tensorboard"


def main() -> None:
    service = told()
    only_installed()
    from tensorboard import default, program
    from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

    folder = os.path.join(os.environ["TMPDIR"], "runs")
    os.makedirs(folder, exist_ok=True)
    link_runs(folder, service)
    idle = Idle(float(service["idle"]))

    class Quiet(WSGIRequestHandler):
        def log_request(self, *_: Any) -> None:
            """A line for each request would bury what matters in the run's log."""

    class Server(ThreadedWSGIServer):
        def __init__(self, app: Any, flags: Any) -> None:
            path = fresh_socket(service["sockets"], "tensorboard")
            super().__init__("unix://" + path, 0, idle.counting(app), handler=Quiet)
            os.chmod(path, 0o600)

        def get_url(self) -> str:  # its manager wants a port that is a number
            return "http://localhost:0/"

        def print_serving_message(self) -> None:
            print("TensorBoard over %s is ready" % (service["run"] or "the runs of " + service["project"]))

        def service_actions(self) -> None:
            if idle.over:
                print("nobody has looked for %g minutes: TensorBoard ends" % (idle.allowed / 60))
                os._exit(0)

    def keep_linking() -> None:
        while True:
            time.sleep(LOOK_EVERY)
            try:
                link_runs(folder, service)
            except OSError as error:
                print("cannot look for new runs: %s" % error, file=sys.stderr)

    threading.Thread(target=keep_linking, daemon=True).start()
    board = program.TensorBoard(plugins=default.get_plugins(), server_class=Server)
    board.configure(
        argv=[
            "tensorboard",
            "--logdir", folder,
            "--load_fast=false",  # its fast loader opens a port of its own
            "--reload_interval", str(RELOAD_EVERY),
            "--window_title", service["title"],
        ]
    )  # fmt: skip
    sys.exit(board.main())


if __name__ == "__main__":
    main()
