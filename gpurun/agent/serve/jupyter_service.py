"""Jupyter Lab in the job's workspace, on a Unix socket; its kernels speak over sockets too."""

import os

from told import fresh_socket, only_installed, told


def main() -> None:
    service = told()
    sockets = service["sockets"]
    # Kernels put their sockets here, whose paths must be short; others have no way in.
    runtime = os.path.join(sockets, "jupyter.d")
    os.makedirs(runtime, mode=0o700, exist_ok=True)
    os.environ["JUPYTER_RUNTIME_DIR"] = runtime
    only_installed()
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
        "LabApp.news_url": None,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    LabApp.app_name = service["title"]
    print("Jupyter Lab starts in %s" % service["workspace"], flush=True)
    # These are no arguments of a process: nobody sees them in `ps`.
    LabApp.launch_instance(argv=["--%s=%s" % option for option in options.items()])


if __name__ == "__main__":
    main()
