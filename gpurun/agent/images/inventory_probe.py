"""Print what a Python has, as one line of JSON. Runs in a job's image or environment, on any Python 3 there.

torch is not imported where its files are enough: an import would take seconds and a gigabyte of memory.
"""

import json
import os
import platform
import runpy
import subprocess
import sys
from importlib import util
from typing import TYPE_CHECKING, Dict, Optional

if TYPE_CHECKING:
    from ..schema.run import Inventory


def packages() -> Dict[str, str]:
    """Return name -> version of all installed packages.

    The first on the path counts, because it is the one that is imported.
    """
    try:
        from importlib.metadata import distributions
    except ImportError:  # Python 3.7 and older
        return {}
    versions: Dict[str, str] = {}
    for package in distributions():
        name = package.metadata["Name"]
        if name:
            versions.setdefault(name, package.version)
    return dict(sorted(versions.items(), key=lambda item: item[0].lower()))


def torch() -> Dict[str, Optional[str]]:
    """Return `torch` and `cuda` from torch's own version.py; CUDA is None for a CPU build."""
    spec = util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return {"torch": None, "cuda": None}
    values = runpy.run_path(os.path.join(next(iter(spec.submodule_search_locations)), "version.py"))
    return {"torch": values.get("__version__"), "cuda": values.get("cuda")}


def cudnn(installed: Dict[str, str]) -> Optional[str]:
    """Return the version of cuDNN: of its package, or else as torch reports it, in a process of its own."""
    for name, version in installed.items():
        if name.lower().startswith("nvidia-cudnn-cu"):
            return version
    ask = [sys.executable, "-I", "-c", "import torch; print(torch.backends.cudnn.version() or '')"]
    done = subprocess.run(ask, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    output = done.stdout.strip()
    return spelled(int(output)) if output.isdigit() else None


def spelled(number: int) -> str:
    """91002 -> "9.10.2", 8907 -> "8.9.7"."""
    major = 10000 if number >= 90000 else 1000
    return "%d.%d.%d" % (number // major, number % major // 100, number % 100)


def inventory() -> "Inventory":
    installed = packages()
    built = torch()
    return {
        "python": platform.python_version(),
        "torch": built["torch"],
        "cuda": built["cuda"],
        "cudnn": cudnn(installed) if built["cuda"] else None,
        "lightning": installed.get("lightning") or installed.get("pytorch-lightning"),
        "packages": installed,
    }


if __name__ == "__main__":
    print(json.dumps(inventory()))
