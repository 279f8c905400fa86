"""What the script of a notebook calls, in the job's own Python: as little of Jupyter as a batch run can use.

Needs the standard library alone. Figures and displayed objects that a log cannot show are saved in `notebook/` of the
job's working directory, by the first process of a job of several. Written to by `gpurun.notebook.convert` on the laptop.
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

ROOT = "GPURUN_NOTEBOOK_ROOT"  # for the further processes of the job, which begin in the notebook's folder


def begin(script_file: str, notebook: str) -> None:
    """First of all: be where Jupyter would be, in the folder of the notebook, which lies at `notebook` in the project."""
    root = os.environ.setdefault(ROOT, os.getcwd())
    folder = os.path.join(root, os.path.dirname(notebook))
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    # In place of this script's own folder, whose files would hide modules of the project.
    if sys.path and os.path.realpath(sys.path[0]) == os.path.dirname(os.path.realpath(script_file)):
        sys.path[0] = folder
    # Jupyter has no such file either. Where there is one, multiprocessing runs it again in each process that it spawns.
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
    """Behind the last cell."""
    _shown.end_of_cell()


def cell(number: int) -> None:
    """Cell `number` begins; the figures of the one before are saved, as Jupyter shows them under it."""
    _shown.end_of_cell()
    _shown.begin_cell(number)
    # Of what is registered last comes first: pyplot, once it is there, closes all figures at the end.
    atexit.unregister(_shown.end_of_cell)
    atexit.register(_shown.end_of_cell)


def left_out(line: str) -> None:
    """Stands for a line that means nothing in a job."""
