"""Jupyter Lab in the job's workspace, on a Unix socket; its kernels speak over sockets too."""

import glob
import json
import os
from typing import Any, List

from shell_service import computes
from told import fresh_socket, only_installed, told


def leave_out_news(folder: str) -> None:
    """Nobody is asked about news on each first visit, and no server of others is called."""
    settings = os.path.join(folder, "labconfig", "page_config.json")
    os.makedirs(os.path.dirname(settings), exist_ok=True)
    with open(settings, "w") as file:
        json.dump({"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}, file)
    paths = [folder, os.environ.get("JUPYTER_CONFIG_PATH", "")]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(path for path in paths if path)


def close_terminals_at_their_prompts_alone() -> None:
    """Jupyter takes a terminal that says nothing for idle; something may compute in it."""
    from jupyter_server_terminals.terminalmanager import TerminalManager

    close = TerminalManager._cull_inactive_terminal

    async def close_at_prompt(self: Any, name: str) -> None:
        terminal = self.terminals.get(name)
        if terminal is None or not computes(["/proc/%d" % pid for pid in with_children(terminal.ptyproc.pid)]):
            await close(self, name)

    TerminalManager._cull_inactive_terminal = close_at_prompt


def with_children(pid: int) -> List[int]:
    """The process, and those that it has started."""
    found = [pid]
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path, "rb") as file:
                if int(file.read().rpartition(b")")[2].split()[1]) == pid:
                    found.append(int(path.split("/")[2]))
        except OSError:  # it has just ended
            continue
    return found


def main() -> None:
    service = told()
    sockets = service["sockets"]
    # Kernels put their sockets here, whose paths must be short; others have no way in.
    runtime = os.path.join(sockets, "jupyter.d")
    os.makedirs(runtime, mode=0o700, exist_ok=True)
    os.environ["JUPYTER_RUNTIME_DIR"] = runtime
    leave_out_news(os.path.join(runtime, "config"))
    only_installed()
    close_terminals_at_their_prompts_alone()
    from jupyterlab.labapp import LabApp

    with open(service["token_file"]) as file:
        token = file.read().strip()
    idle = int(service["idle"])
    look_every = max(1, min(60, idle // 4))
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
        "MappingKernelManager.cull_interval": look_every,
        "TerminalManager.cull_inactive_timeout": idle,
        "TerminalManager.cull_interval": look_every,
        "ServerApp.shutdown_no_activity_timeout": idle,
    }
    LabApp.app_name = service["title"]
    print("Jupyter Lab starts in %s" % service["workspace"], flush=True)
    # These are no arguments of a process: nobody sees them in `ps`.
    LabApp.launch_instance(argv=["--%s=%s" % option for option in options.items()])


if __name__ == "__main__":
    main()
