"""Provide the functions that the script of a notebook calls, in the job's own Python.

This needs only the standard library. Figures and displayed objects that a log cannot show are saved in `notebook/` of the job's
working directory, only by the first process of the job. `gpurun.notebook.convert` on the laptop writes the calls.
"""

import atexit
import builtins
import os
import shutil
import sys

from . import shown as _shown
from . import stand_in as _stand_in
from . import tracebacks as _tracebacks
from .commands import cd, env, getoutput, pwd, run, script, system, time_begins, time_ends, timed, write_file
from .shown import clear_output, display, show, show_html, show_svg

__all__ = [
    "begin", "cd", "cell", "clear_output", "display", "end", "env", "getoutput", "left_out", "pwd", "run", "script", "show",
    "show_html", "show_svg", "system", "time_begins", "time_ends", "timed", "write_file",
]  # fmt: skip

ROOT = "GPURUN_NOTEBOOK_ROOT"  # for further processes of the job, which start in the notebook's folder


def begin(script_file: str, notebook: str) -> None:
    """Start the script in the notebook's folder, as Jupyter does. `notebook` is its path in the project."""
    root = os.environ.setdefault(ROOT, os.getcwd())
    folder = os.path.join(root, os.path.dirname(notebook))
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    # Replace this script's own folder, whose files would hide modules of the project.
    if sys.path and os.path.realpath(sys.path[0]) == os.path.dirname(os.path.realpath(script_file)):
        sys.path[0] = folder
    # Jupyter has no `__file__` either. With one, multiprocessing would run the script again in each spawned process.
    sys.modules["__main__"].__dict__.pop("__file__", None)
    os.environ.setdefault("MPLBACKEND", "module://gpurun_notebook.figures")
    _shown.begin(os.path.join(root, "notebook"), root)
    _tracebacks.begin(script_file, os.path.basename(notebook))
    builtins.display = display  # type: ignore[attr-defined]
    with open(script_file, encoding="utf-8") as file:
        if "IPython" in file.read():
            _stand_in.begin()
    if _shown.is_first_process():
        os.makedirs(_shown.folder(), exist_ok=True)
        shutil.copyfile(script_file, os.path.join(_shown.folder(), os.path.basename(script_file)))


def end() -> None:
    """End the script, after the last cell."""
    _shown.end_of_cell()


def cell(number: int) -> None:
    """Start cell `number`; save the figures of the cell before, which Jupyter shows below it."""
    _shown.end_of_cell()
    _shown.begin_cell(number)
    # atexit calls the last registered function first. This one must run before pyplot closes all figures.
    atexit.unregister(_shown.end_of_cell)
    atexit.register(_shown.end_of_cell)


def left_out(line: str) -> None:
    """Do nothing, in place of a line that has no effect in a job."""
