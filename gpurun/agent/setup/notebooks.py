"""Write the files of a notebook's run into its ro/: the script, which the laptop made from the notebook, and the
package that it calls.

A job with `notebook` = {"path", "script", "source"} runs `source`, as the file `script`; `path` is the notebook's path
in the project.
"""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING, List

from .. import vocabulary as words
from ..files import write_atomically
from ..paths import RunPaths

if TYPE_CHECKING:
    from ..schema.job import Job, Notebook

PROGRAMS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "notebook")
PACKAGE = "gpurun_notebook"


def command(notebook: Notebook, args: List[str], ro: str) -> List[str]:
    """Return the command of the job; `ro` is the path of the run's ro/ inside the job."""
    return ["python", "%s/%s/%s" % (ro, words.NOTEBOOK, notebook["script"]), *args]


def lay_out(run: RunPaths, job: Job) -> None:
    """Write the script and copy the package. Do nothing for other jobs."""
    notebook = job.get("notebook")
    if not notebook:
        return
    os.makedirs(os.path.join(run.notebook, PACKAGE), exist_ok=True)
    source = notebook["source"].encode("utf-8", "surrogateescape")
    write_atomically(os.path.join(run.notebook, os.path.basename(notebook["script"])), source)
    for module in glob.glob(os.path.join(PROGRAMS, PACKAGE, "*.py")):
        with open(module, "rb") as file:
            write_atomically(os.path.join(run.notebook, PACKAGE, os.path.basename(module)), file.read())
