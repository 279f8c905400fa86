"""TensorBoard over the runs of a project, on a Unix socket and nothing else."""

import os
import sys
import time
from typing import Any, Callable, Dict, Iterable

from told import fresh_socket, only_installed, told

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


def main() -> None:
    service = told()
    only_installed()
    from tensorboard import default, program
    from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

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

    board = program.TensorBoard(plugins=default.get_plugins(), server_class=Server)
    board.configure(
        argv=[
            "tensorboard",
            "--logdir", service["board"],  # the supervisor on the host fills it
            "--load_fast=false",  # its fast loader opens a port of its own
            "--reload_interval", str(RELOAD_EVERY),
            "--window_title", service["title"],
        ]
    )  # fmt: skip
    sys.exit(board.main())


if __name__ == "__main__":
    main()
