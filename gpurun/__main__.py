"""`gpurun` and `python -m gpurun`."""

import sys


def main() -> None:
    from gpurun.cli.app import main as run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
