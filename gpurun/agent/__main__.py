"""Start the agent. This file parses on any Python 3, so that a Python that is too old is reported clearly.

The archive that travels to a host holds this file at its top, and beside it `gpurun/__init__.py` (empty) and
`gpurun/agent/**` as in the project, with the project's `docker/` as `gpurun/agent/image/`. So the package has the same
name on laptop and host, and no module of gpurun shadows a module of the standard library.
"""

import sys


def main() -> None:
    if sys.version_info < (3, 8):
        too_old()
        return
    from gpurun.agent.dispatch import main as dispatch

    dispatch()


def too_old() -> None:
    import json

    nonce = json.loads(sys.stdin.readline())["nonce"]
    version = ".".join(str(part) for part in sys.version_info[:3])
    error = {
        "code": "python_too_old",
        "what": "the host's Python is " + version + "; gpurun needs 3.8 or later there",
        "where": sys.executable,
        "next": 'name a newer Python: python = "/path/to/python3" in the host\'s profile (hosts.toml)',
        "exit": 125,
    }
    sys.stdout.write("\n" + nonce + "\n" + json.dumps({"ok": False, "error": error}) + "\n")


if __name__ == "__main__":
    main()
