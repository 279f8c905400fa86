"""Run Jupyter Lab in the job's workspace, on a Unix socket; its kernels use sockets too."""

import atexit
import glob
import json
import os
import shutil
import tempfile
from typing import Any, List

from service_settings import fresh_socket, import_only_installed, read_settings

LONGEST = 107  # bytes, of a socket's path on Linux
KERNEL_SOCKET = "/kernel-01234567-89ab-cdef-0123-456789abcdef-ipc-5"


def disable_announcements(folder: str) -> None:
    """Disable the question about news on the first visit, and the requests to the news server."""
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
    """Return the pids of the live children of `pid`."""
    pids = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path, "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except OSError:  # the process has just ended
            continue
        if int(parent) == pid and state not in (b"Z", b"X"):
            pids.append(int(path.split("/")[2]))
    return pids


def count_terminal_commands_as_use() -> None:
    """Do not shut down while a command runs in a terminal: Jupyter itself counts only kernels as use."""
    from jupyter_server.serverapp import ServerApp

    shut_down = ServerApp.shutdown_no_activity

    def shut_down_if_idle(app: Any) -> None:
        if not any(children(shell) for shell in children(os.getpid())):
            shut_down(app)

    ServerApp.shutdown_no_activity = shut_down_if_idle


def ignore_polling() -> None:
    """Do not count the requests of an idle tab as use: it polls kernels and folders, and Lab saves its own layout."""
    from jupyter_server.base.handlers import APIHandler

    note = APIHandler.update_api_activity

    def note_use(handler: Any) -> None:
        request = handler.request
        if request.method not in ("GET", "HEAD") and not request.path.startswith("/lab/"):
            note(handler)

    APIHandler.update_api_activity = note_use


def main() -> None:
    service = read_settings()
    sockets = service["sockets"]
    # Kernels put their sockets here; others have no way in.
    runtime = short_enough(os.path.join(sockets, "jupyter.d"))
    os.environ["JUPYTER_RUNTIME_DIR"] = runtime
    disable_announcements(os.path.join(runtime, "config"))
    import_only_installed()
    count_terminal_commands_as_use()
    ignore_polling()
    from jupyterlab.labapp import LabApp

    with open(service["token_file"]) as file:
        token = file.read().strip()
    idle = int(service["idle"])
    options = {
        "ServerApp.sock": fresh_socket(sockets, "jupyter"),
        "ServerApp.sock_mode": "0600",
        "ServerApp.root_dir": service["workspace"],
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,  # in a container of a rootless engine the user has uid 0
        "ServerApp.log_level": 30,  # lower levels would print the token
        "IdentityProvider.token": token,
        "KernelManager.transport": "ipc",
        # Never cull a busy kernel, but cull an idle one, even when a forgotten browser tab is connected to it.
        "MappingKernelManager.cull_idle_timeout": idle,
        "MappingKernelManager.cull_connected": True,
        "MappingKernelManager.cull_interval": max(1, min(60, idle // 4)),
        "ServerApp.shutdown_no_activity_timeout": idle,
    }
    LabApp.app_name = service["title"]
    print("Jupyter Lab starts in %s" % service["workspace"], flush=True)
    # These are not the arguments of a process, so `ps` does not show them.
    LabApp.launch_instance(argv=["--%s=%s" % option for option in options.items()])


if __name__ == "__main__":
    main()
