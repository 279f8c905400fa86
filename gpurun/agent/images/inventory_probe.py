"""What a Python has, as one line of JSON. It runs in a job's image or environment, on whatever Python 3 is there.

torch is not imported where its files tell enough: that would take seconds and a gigabyte of memory.
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
    """Name -> version of everything that is installed; the first on the path is the one that is imported."""
    try:
        from importlib.metadata import distributions
    except ImportError:  # Python 3.7 and older
        return {}
    found: Dict[str, str] = {}
    for one in distributions():
        name = one.metadata["Name"]
        if name:
            found.setdefault(name, one.version)
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def torch() -> Dict[str, Optional[str]]:
    """`torch` and `cuda` as its own version.py has them; CUDA is None for a build that is for the CPU."""
    spec = util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return {"torch": None, "cuda": None}
    told = runpy.run_path(os.path.join(next(iter(spec.submodule_search_locations)), "version.py"))
    return {"torch": told.get("__version__"), "cuda": told.get("cuda")}


def cudnn(installed: Dict[str, str]) -> Optional[str]:
    """The version of cuDNN: of its package, or else as torch says, which is asked in a process of its own."""
    for name, version in installed.items():
        if name.lower().startswith("nvidia-cudnn-cu"):
            return version
    ask = [sys.executable, "-I", "-c", "import torch; print(torch.backends.cudnn.version() or '')"]
    done = subprocess.run(ask, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    said = done.stdout.strip()
    return spelled(int(said)) if said.isdigit() else None


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
