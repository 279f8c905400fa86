"""Run TensorBoard over the runs of a project, on a Unix socket only."""

import os
import sys
import time
from typing import Any, Callable, Dict, Iterable

from service_settings import fresh_socket, import_only_installed, read_settings

RELOAD_INTERVAL = 5  # seconds between two readings of the event files


class Idle:
    """Measures the time since the last request."""

    def __init__(self, allowed: float) -> None:
        self.allowed = allowed
        self.last = time.monotonic()

    def counting(self, app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        """Return `app` with each request counted as use."""

        def counted(environ: Dict[str, Any], start_response: Any) -> Iterable[bytes]:
            self.last = time.monotonic()
            return app(environ, start_response)

        return counted

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.last + self.allowed


def main() -> None:
    service = read_settings()
    import_only_installed()
    from tensorboard import default, program
    from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

    idle = Idle(float(service["idle"]))

    class Quiet(WSGIRequestHandler):
        def log_request(self, *_: Any) -> None:
            """Print nothing, so that the important lines of the run's log stay visible."""

    class Server(ThreadedWSGIServer):
        def __init__(self, app: Any, flags: Any) -> None:
            path = fresh_socket(service["sockets"], "tensorboard")
            super().__init__("unix://" + path, 0, idle.counting(app), handler=Quiet)
            os.chmod(path, 0o600)

        def get_url(self) -> str:  # its manager requires a numeric port
            return "http://localhost:0/"

        def print_serving_message(self) -> None:
            print("TensorBoard over %s is ready" % (service["run"] or "the runs of " + service["project"]))

        def service_actions(self) -> None:
            if idle.is_over:
                print("no request for %g minutes: TensorBoard ends" % (idle.allowed / 60))
                os._exit(0)

    board = program.TensorBoard(plugins=default.get_plugins(), server_class=Server)
    board.configure(
        argv=[
            "tensorboard",
            "--logdir", service["board"],  # the supervisor on the host fills it
            "--load_fast=false",  # its fast loader opens a port of its own
            "--reload_interval", str(RELOAD_INTERVAL),
            "--window_title", service["title"],
        ]
    )  # fmt: skip
    sys.exit(board.main())


if __name__ == "__main__":
    main()
