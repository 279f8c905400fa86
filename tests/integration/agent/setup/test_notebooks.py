"""Run the script of a notebook as a job does: with a real Python and the package beside it, without gpurun."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.paths import HostPaths
from gpurun.agent.setup import notebooks
from gpurun.notebook.convert import convert, script_name
from tests.support.notebook_text import of

pytestmark = pytest.mark.usefixtures("home")

CAPTURED = Path(__file__).parents[3] / "data/notebooks/exploring.ipynb"


@dataclass(frozen=True)
class Ran:
    code: int
    log: str
    workspace: Path

    @property
    def shown(self) -> list[str]:
        """The files in `notebook/`."""
        return sorted(path.name for path in (self.workspace / "notebook").iterdir())


def run(folder: Path, text: str, path: str = "train.ipynb", *args: str, **environment: str) -> Ran:
    """Prepare a job and run it as the wrapper does."""
    paths = HostPaths(str(folder / "host")).run("train-7f3k")
    told = {"path": path, "script": script_name(path), "source": convert(text, path).source}
    job: Any = {"notebook": told, "args": list(args)}
    notebooks.lay_out(paths, job)
    workspace = Path(paths.workspace)
    workspace.mkdir(exist_ok=True)
    command = notebooks.command(job["notebook"], job["args"], paths.ro)
    done = subprocess.run(
        [sys.executable, *command[1:]],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(workspace), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert command[0] == "python"
    return Ran(done.returncode, done.stdout, workspace)


def texts(output: dict[str, Any]) -> str:
    """Return what Jupyter showed as text."""
    text = output["text"] if output["output_type"] == "stream" else output["data"].get("text/plain", "")
    return "".join(text)


def test_real_notebook_logs_the_same_text_as_in_jupyter(tmp_path: Path) -> None:
    ran = run(tmp_path, CAPTURED.read_text(), "notebooks/exploring.ipynb")
    assert ran.code == 0, ran.log
    seen = 0
    for cell in json.loads(CAPTURED.read_text())["cells"]:
        for output in cell.get("outputs", []):
            if output["output_type"] != "display_data" and "wall time" not in texts(output).lower():
                for line in texts(output).splitlines():
                    if not re.search(r"Writing helper|per loop|CPU times", line):
                        assert line in ran.log
                        seen += 1
    assert seen >= 10
    assert ran.shown == ["cell-05-1.png", "cell-05-2.png", "cell-06-1.html", "cell-07-1.html", "exploring.py"]
    assert (ran.workspace / "notebook/cell-05-2.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "<td>1</td>" in (ran.workspace / "notebook/cell-06-1.html").read_text()
    assert "[cell 5] shown in notebook/cell-05-1.png" in ran.log


def test_script_runs_in_the_folder_of_the_notebook(tmp_path: Path) -> None:
    workspace = Path(HostPaths(str(tmp_path / "host")).run("train-7f3k").workspace)
    (workspace / "notebooks").mkdir(parents=True)
    (workspace / "models.py").write_text("NAME = 'of the project'")
    (workspace / "notebooks" / "train.py").write_text("NAME = 'beside the notebook'")
    text = of("import os, sys, models, train\nprint(os.getcwd(), models.NAME, train.NAME, sys.argv[1:])")
    ran = run(tmp_path, text, "notebooks/train.ipynb", "--lr", "1")
    assert f"{workspace}/notebooks of the project beside the notebook ['--lr', '1']" in ran.log


def test_traceback_has_cell_and_line(tmp_path: Path) -> None:
    text = of("def ratio(value):\n    return 1 / value", "!ls \\\n  -l /nowhere", "x = 0\n\nratio(x)")
    ran = run(tmp_path, text, "notebooks/train.ipynb")
    assert ran.code == 1
    assert "`ls    -l /nowhere` ended with exit code 2" in ran.log
    assert ran.log.endswith(
        "Traceback (most recent call last):\n"
        '  File "train.ipynb, cell 3", line 3, in <module>\n'
        "    ratio(x)\n"
        '  File "train.ipynb, cell 1", line 2, in ratio\n'
        "    return 1 / value\n"
        "ZeroDivisionError: division by zero\n"
    )


def test_chained_traceback_has_cells_and_no_frames_of_gpurun(tmp_path: Path) -> None:
    text = of("try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('x') from error", "%time 1")
    ran = run(tmp_path, text)
    assert 'File "train.ipynb, cell 1", line 2, in <module>\n    1 / 0\n' in ran.log
    assert 'File "train.ipynb, cell 1", line 4, in <module>\n' in ran.log
    ran = run(tmp_path, of("x = 1", "%time missing"))
    assert 'File "train.ipynb, cell 2", line 1, in <module>' in ran.log
    assert "gpurun_notebook" not in ran.log


def test_figures_of_a_failing_cell_are_saved(tmp_path: Path) -> None:
    ran = run(tmp_path, of("import matplotlib.pyplot as plt\nplt.plot([1])\nraise SystemExit(3)"))
    assert ran.code == 3
    assert ran.shown == ["cell-01-1.png", "train.py"]


def test_show_in_the_middle_of_a_cell(tmp_path: Path) -> None:
    text = of(
        "from matplotlib import pyplot as plt\nfor n in range(2):\n    plt.plot([n])\n    plt.show()\nprint('end')"
    )
    ran = run(tmp_path, text)
    assert ran.code == 0
    assert ran.shown == ["cell-01-1.png", "cell-01-2.png", "train.py"]
    assert ran.log.index("cell-01-2.png") < ran.log.index("end")
    assert "non-interactive" not in ran.log


def test_figure_as_last_expression_is_saved_once(tmp_path: Path) -> None:
    text = of("import matplotlib.pyplot as plt\nfigure, axes = plt.subplots()\nfigure")
    assert run(tmp_path, text).shown == ["cell-01-1.png", "train.py"]


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_only_the_first_process_saves(tmp_path: Path, variable: str) -> None:
    text = of("import matplotlib.pyplot as plt\nplt.plot([1]);", "print('trained')")
    ran = run(tmp_path, text, WORLD_SIZE="2", **{variable: "1"})
    assert "trained" in ran.log
    assert not (ran.workspace / "notebook").exists()
    assert run(tmp_path, text, WORLD_SIZE="2", **{variable: "0"}).shown == ["cell-01-1.png", "train.py"]


def test_rank_without_world_size_is_ignored(tmp_path: Path) -> None:
    assert run(tmp_path, of("x = 1"), RANK="8").shown == ["train.py"]


@pytest.mark.parametrize(
    "path", ["two words/it's.ipynb", "-f.ipynb", "größe/数据.ipynb", '"$(id)".ipynb', "a\nb.ipynb"]
)
def test_notebook_with_an_unusual_name(tmp_path: Path, path: str) -> None:
    ran = run(tmp_path, of("import os\nprint(repr(os.getcwd()))", "1 / 0"), path)
    assert ran.code == 1
    assert repr(str(ran.workspace / os.path.dirname(path)).rstrip("/")) in ran.log
    assert f'File "{os.path.basename(path)}, cell 2", line 1, in <module>' in ran.log


def test_second_process_starts_in_the_same_folder(tmp_path: Path) -> None:
    """Lightning starts further processes by the script's path, in the folder of the first process."""
    text = of(
        "import os, subprocess, sys\n"
        "print('in', os.getcwd())\n"
        "if 'LOCAL_RANK' not in os.environ:\n"
        "    subprocess.run([sys.executable, os.path.abspath(sys.argv[0])], env={**os.environ, 'LOCAL_RANK': '1'}, check=True)"
    )
    ran = run(tmp_path, text, "a/b/train.ipynb")
    places = re.findall(r"in (\S+)", ran.log)
    assert places == [f"{ran.workspace}/a/b"] * 2


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_spawned_process_does_not_run_the_notebook_again(tmp_path: Path, method: str) -> None:
    """As in Jupyter. DataLoader workers can be such processes."""
    text = of(
        "%%writefile helper.py\ndef work(n):\n    print('worked', n, flush=True)\n",
        "import multiprocessing, helper\nprint('once', flush=True)\n"
        f"process = multiprocessing.get_context({method!r}).Process(target=helper.work, args=(1,))\n"
        "process.start()\nprocess.join()\nprocess.exitcode",
    )
    ran = run(tmp_path, text)
    assert ran.log.splitlines()[1:] == ["once", "worked 1", "0"]


def hide(folder: Path, package: str) -> str:
    """Return a PYTHONPATH entry that hides `package`, as if it was never installed."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {package!r}: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    return str(folder)


def test_script_runs_without_ipython(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG...")
    text = of(
        "import IPython\nfrom IPython.display import HTML, Image, Audio, clear_output, display\nfrom IPython import get_ipython",
        "display(HTML('<b>bold</b>'), 7)\nclear_output(wait=True)",
        f"Image({str(tmp_path / 'picture.png')!r})",
        "Audio([1, 2], rate=3)",
        "print(get_ipython())",
    )
    ran = run(tmp_path, text, PYTHONPATH=hide(tmp_path / "hidden", "IPython"))
    assert ran.code == 0, ran.log
    assert "bold" in (ran.workspace / "notebook/cell-02-1.html").read_text()
    assert (ran.workspace / "notebook/cell-03-1.png").read_bytes() == b"\x89PNG..."
    assert ran.log.splitlines()[-2:] == ["<Audio object>", "None"]
    assert "\n7\n" in ran.log


def test_display_of_installed_ipython_is_replaced(tmp_path: Path) -> None:
    text = of("from IPython.display import HTML, Markdown, display\ndisplay(HTML('<b>bold</b>'))", "Markdown('*text*')")
    ran = run(tmp_path, text)
    assert ran.code == 0, ran.log
    assert "bold" in (ran.workspace / "notebook/cell-01-1.html").read_text()
    assert "*text*" in ran.log


def test_object_that_fails_to_draw_itself_is_printed(tmp_path: Path) -> None:
    text = of(
        "class Odd:\n    def _repr_html_(self):\n        raise RuntimeError\n    def __repr__(self):\n        return 'odd'",
        "Odd()",
        "Odd",
    )
    ran = run(tmp_path, text)
    assert ran.code == 0
    assert ran.log.splitlines()[0] == "odd"
    assert ran.shown == ["train.py"]


def test_failing_shell_cell_ends_the_run(tmp_path: Path) -> None:
    assert run(tmp_path, of("%%bash\nexit 3")).code == 1
    ran = run(tmp_path, of("%%bash --no-raise-error\nexit 3", "!exit 4", "print('on')"))
    assert ran.code == 0
    assert ran.log.splitlines() == ["[cell 2] `exit 4` ended with exit code 4", "on"]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("!echo {1 + 1} $name {name!r} {name[:2]}", "2 gpu gpu gp"),
        ("!echo a b | awk '{print $2}'", "b"),
        ("!echo ${HOME##*/}", "home"),
        ("!printf '%s' '{\"a\": 1}'", '{"a": 1}'),
    ],
)
def test_command_gets_values_of_python(tmp_path: Path, command: str, says: str) -> None:
    assert run(tmp_path, of(f"name = 'gpu'\n{command}")).log.strip() == says


def test_run_adds_the_names_of_another_script(tmp_path: Path) -> None:
    text = of("%%writefile other.py\nimport sys\nfound = sys.argv[1:]", "%run other.py --lr 1", "found")
    assert run(tmp_path, text).log.splitlines()[-1] == "['--lr', '1']"
