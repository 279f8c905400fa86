"""Jupyter Lab in the job's workspace, on a Unix socket; its kernels speak over sockets too."""

import atexit
import glob
import json
import os
import shutil
import tempfile
from typing import Any, List

from told import fresh_socket, only_installed, told

LONGEST = 107  # bytes, of a socket's path on Linux
KERNEL_SOCKET = "/kernel-01234567-89ab-cdef-0123-456789abcdef-ipc-5"


def leave_out_news(folder: str) -> None:
    """Nobody is asked about news on each first visit, and no server of others is called."""
    settings = os.path.join(folder, "labconfig", "page_config.json")
    os.makedirs(os.path.dirname(settings), exist_ok=True)
    with open(settings, "w") as file:
        json.dump({"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}, file)
    paths = [folder, os.environ.get("JUPYTER_CONFIG_PATH", "")]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(path for path in paths if path)


def short_enough(folder: str) -> str:
    """Return `folder`, or another for as long as this process lives, where the paths of a kernel's sockets fit."""
    if len(os.fsencode(folder)) + len(KERNEL_SOCKET) <= LONGEST:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        return folder
    short = tempfile.mkdtemp(prefix="gpurun-jupyter-", dir="/tmp")  # 0700
    atexit.register(shutil.rmtree, short, ignore_errors=True)
    return short


def children(pid: int) -> List[int]:
    """The processes that it has started and that still live."""
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path, "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        if int(parent) == pid and state not in (b"Z", b"X"):
            found.append(int(path.split("/")[2]))
    return found


def stay_while_a_terminal_computes() -> None:
    """Jupyter counts kernels as use, and nothing that runs in a terminal, silent as that may be."""
    from jupyter_server.serverapp import ServerApp

    end = ServerApp.shutdown_no_activity

    def end_if_idle(app: Any) -> None:
        if not any(children(shell) for shell in children(os.getpid())):
            end(app)

    ServerApp.shutdown_no_activity = end_if_idle


def count_no_polling() -> None:
    """A tab that was left open asks for kernels and folders all the time, and Lab writes down its own layout: no use."""
    from jupyter_server.base.handlers import APIHandler

    note = APIHandler.update_api_activity

    def note_use(handler: Any) -> None:
        request = handler.request
        if request.method not in ("GET", "HEAD") and not request.path.startswith("/lab/"):
            note(handler)

    APIHandler.update_api_activity = note_use


def main() -> None:
    service = told()
    sockets = service["sockets"]
    # Kernels put their sockets here; others have no way in.
    runtime = short_enough(os.path.join(sockets, "jupyter.d"))
    os.environ["JUPYTER_RUNTIME_DIR"] = runtime
    leave_out_news(os.path.join(runtime, "config"))
    only_installed()
    stay_while_a_terminal_computes()
    count_no_polling()
    from jupyterlab.labapp import LabApp

    with open(service["token_file"]) as file:
        token = file.read().strip()
    idle = int(service["idle"])
    options = {
        "ServerApp.sock": fresh_socket(sockets, "jupyter"),
        "ServerApp.sock_mode": "0600",
        "ServerApp.root_dir": service["workspace"],
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,  # in a container of a rootless engine the user is 0
        "ServerApp.log_level": 30,  # its own lines would show the token
        "IdentityProvider.token": token,
        "KernelManager.transport": "ipc",
        # A kernel that computes is never ended; one that idles is, though a forgotten browser tab holds on to it.
        "MappingKernelManager.cull_idle_timeout": idle,
        "MappingKernelManager.cull_connected": True,
        "MappingKernelManager.cull_interval": max(1, min(60, idle // 4)),
        "ServerApp.shutdown_no_activity_timeout": idle,
    }
    LabApp.app_name = service["title"]
    print("Jupyter Lab starts in %s" % service["workspace"], flush=True)
    # These are no arguments of a process: nobody sees them in `ps`.
    LabApp.launch_instance(argv=["--%s=%s" % option for option in options.items()])


if __name__ == "__main__":
    main()
