"""`gpurun` and `python -m gpurun`."""

import io
import sys


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of another charset shows escaped what it does not have
            stream.reconfigure(errors="backslashreplace")
    from gpurun.cli.app import main as run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
