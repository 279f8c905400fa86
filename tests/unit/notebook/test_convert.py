"""The conversion of a notebook to a script, and what is refused with its cell's number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpurun.errors import UsageError
from gpurun.notebook.convert import Converted, convert, script_name
from tests.support.notebook_text import of

DATA = Path(__file__).parents[2] / "data/notebooks"


def converted(*cells: str | dict[str, Any]) -> Converted:
    return convert(of(*cells), "train.ipynb")


def body(cell: str) -> str:
    """Return the script of one cell, without its marker and call."""
    return converted(cell).source.split("__gpurun__.cell(1)\n", 1)[1].removesuffix("\n\n__gpurun__.end()\n")


def refusal(*cells: str) -> str:
    with pytest.raises(UsageError) as error:
        converted(*cells)
    assert "gpurun-skip" in error.value.next_step
    first, *lines = error.value.what.split("\n")
    assert first == "train.ipynb cannot run without Jupyter:"
    return "\n".join(line.strip() for line in lines)


def test_convert_whole_script() -> None:
    text = {"cell_type": "markdown", "metadata": {}, "source": "# Title\n\ntext"}
    made = converted("import torch", text, "  \n", "x = 1\nx")
    assert made.source == (
        "# Made by gpurun from 'train.ipynb'; its cells are numbered as after `Restart and run all`.\n"
        "import gpurun_notebook as __gpurun__\n\n"
        "__gpurun__.begin(__file__, 'train.ipynb')\n\n"
        "# %% cell 1\n__gpurun__.cell(1)\nimport torch\n\n"
        "# %% [markdown]\n# # Title\n#\n# text\n\n"
        "# %% cell 2\n__gpurun__.cell(2)\nx = 1\n__gpurun__.show(x)\n\n__gpurun__.end()\n"
    )
    assert (made.requirements, made.notes) == ((), ())


@pytest.mark.parametrize(
    ("cell", "script"),
    [
        ("x = 1", "x = 1"),
        ("f(x)", "__gpurun__.show(f(x))"),
        ("f(x);", "f(x);"),
        ("f(x);  # quiet", "f(x);  # quiet"),
        ("a; f(x)", "a; __gpurun__.show(f(x))"),
        ("(x\n + 1)  # why", "__gpurun__.show((x\n + 1))  # why"),
        ("'größe'; größe(x)", "'größe'; __gpurun__.show(größe(x))"),
        ("'''\n!no\n%no\n'''", "__gpurun__.show('''\n!no\n%no\n''')"),
        ("\n\nx = 1", "\n\nx = 1"),
        ("%matplotlib inline\nx = 1", "__gpurun__.left_out('%matplotlib inline')\nx = 1"),
        ("x?", "__gpurun__.show(__gpurun__.left_out('%pinfo x'))"),
        ("!ls -l {x}", "__gpurun__.system('ls -l {x}')"),
        ("if x:\n    !ls\n    %cd data", "if x:\n    __gpurun__.system('ls')\n    __gpurun__.cd('data')"),
        ("y = !ls", "y = __gpurun__.getoutput('ls')"),
        ("y = %env HOME", "y = __gpurun__.env('HOME')"),
        ("%mkdir -p a", "__gpurun__.show(__gpurun__.system('mkdir -p a'))"),
        ("%time f(x)", "__gpurun__.show(__gpurun__.timed('f(x)'))"),
        ("%run other.py --lr 1", "__gpurun__.show(__gpurun__.run('other.py --lr 1'))"),
        ("%%time\nf(x)", "__gpurun__.time_begins()\n__gpurun__.show(f(x))\n__gpurun__.time_ends()"),
        ("%%time\n!ls", "__gpurun__.time_begins()\n__gpurun__.system('ls')\n__gpurun__.time_ends()"),
        ("%%capture\nf(x)", "__gpurun__.left_out('%%capture')\n__gpurun__.show(f(x))"),
        ("%%bash\necho a\n", "__gpurun__.script('bash', 'echo a\\n', check=True)"),
        ("%%script sh\necho a", "__gpurun__.script('sh', 'echo a', check=True)"),
        ("%%bash --no-raise-error\nfalse", "__gpurun__.script('bash', 'false', check=False)"),
        ("%%writefile m.py\nA = 1", "__gpurun__.write_file('m.py', 'A = 1', append=False)"),
        ("%%writefile -a m.py\nA = 1", "__gpurun__.write_file('m.py', 'A = 1', append=True)"),
        ("%%html\n<b>x</b>", "__gpurun__.show_html('<b>x</b>')"),
        ("%%timeit\nf(x)", "__gpurun__.left_out('%%timeit')"),
        ("get_ipython().run_line_magic('matplotlib', 'inline')",
         "__gpurun__.show(__gpurun__.left_out('%matplotlib inline'))"),
        ("get_ipython().system(f'ls {x}')", "__gpurun__.system(f'ls {x}')"),
        ("from tqdm.notebook import tqdm as bar, trange", "from tqdm.auto import tqdm as bar, trange"),
        (">>> x = 1", "x = 1"),
    ],
)  # fmt: skip
def test_convert_cell(cell: str, script: str) -> None:
    assert body(cell) == script


def test_command_of_two_lines_keeps_the_line_numbers() -> None:
    lines = body("!ls \\\n  -l\nx = 1").split("\n")
    assert lines.index("x = 1") == 2


def test_future_imports_are_moved_to_the_top() -> None:
    made = converted("x = 1", "from __future__ import annotations", "from __future__ import annotations\ny = 2")
    assert made.source.split("\n")[1] == "from __future__ import annotations"
    assert made.source.count("\nfrom __future__") == 1
    compile(made.source, "train.py", "exec")


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("%pip install einops", ["einops"]),
        ("!pip install -q 'einops<1' timm>=1.0", None),
        ("%pip install -q einops<1 timm>=1.0", ["einops<1", "timm>=1.0"]),
        ("!pip install -q 'einops<1' \"timm>=1.0\" > /dev/null 2>&1", ["einops<1", "timm>=1.0"]),
        ("!{sys.executable} -m pip install --upgrade rich", ["rich"]),
        ("!python3 -m pip install rich[jupyter]", ["rich[jupyter]"]),
        ("%uv pip install rich", ["rich"]),
        ("%pip install git+https://github.com/a/b@v1", ["git+https://github.com/a/b@v1"]),
        ("%pip install -r requirements.txt -e .", []),
        ("!pip install -r ../requirements.txt", []),
        ("!pip install .[dev]", []),
        ("%pip install -r requirements/dev.txt", None),
        ("%pip install --index-url https://x rich", None),
        ("!pip install {package}", None),
        ("!pip install a && echo b", None),
        ("%pip uninstall a", None),
        ("%conda install a", None),
    ],
)
def test_pip_install_becomes_a_requirement(line: str, wanted: list[str] | None) -> None:
    if wanted is None:
        assert refusal("x = 1", line).startswith("cell 2: ")
    else:
        made = converted("x = 1", line)
        assert list(made.requirements) == wanted
        assert "left_out" in made.source
        assert "system" not in made.source


def test_pip_list_is_run() -> None:
    assert body("!pip list") == "__gpurun__.system('python -m pip list')"


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("pip install einops", "`pip install einops` is not Python: write `%pip install einops`"),
        ("x = (", "line 1: `x = (` is not Python"),
        ("\nx = 1\ny = 2 +", "line 3: `y = 2 +` is not Python"),
        ("await f()", "line 1: `await f()` uses await outside a function: use asyncio.run"),
        ("return 1", "line 1: `return 1` is not Python"),
        ("%%R\nplot(x)", "%%R has no meaning without Jupyter"),
        ("%%capture out\nf()", "%%capture out: the output of a cell goes to the log"),
        ("%%bash --out x\nls", "%%bash --out x has no meaning without Jupyter"),
        ("%store x", "%store x has no meaning without Jupyter"),
        ("%run other.ipynb", "%run other.ipynb: a run has one notebook"),
        ("get_ipython().kernel_thing(1)", "get_ipython().kernel_thing(...)"),
        ("get_ipython().run_line_magic(name, '')", "with arguments that are known only at run time"),
        ("%%writefile\nx", "needs one file name"),
        ("x = '\ud83d'", "half a character"),
    ],
)
def test_unsupported_cell_is_refused_with_its_number(cell: str, says: str) -> None:
    message = refusal("x = 1", "", cell)
    assert message.startswith("cell 2: ")
    assert says in message


def test_all_unsupported_cells_are_listed() -> None:
    assert [line.split(":")[0] for line in refusal("%store a", "x", "%%R\nx", "%store b").split("\n")] == [
        "cell 1", "cell 3", "cell 4",
    ]  # fmt: skip


def test_tagged_cell_is_skipped_and_keeps_its_number() -> None:
    tagged = {
        "cell_type": "code", "execution_count": 1, "outputs": [], "source": "%%R\nx", "metadata": {"tags": ["gpurun-skip"]},
    }  # fmt: skip
    made = converted("x = 1", tagged, "y = 2").source
    assert "%%R" not in made
    assert "# %% cell 2 is skipped" in made
    assert "__gpurun__.cell(3)\ny = 2" in made


def test_left_out_magics_are_noted() -> None:
    notes = converted("%timeit f()", "%tensorboard --logdir logs", "%matplotlib inline").notes
    assert [note.split(" is left out")[0] for note in notes] == [
        "cell 1: %timeit f()", "cell 2: %tensorboard --logdir logs",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "{}", "print(1)", '{"cells": 3}', "[]", "null"])
def test_invalid_notebook_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"train\.ipynb (is not a valid notebook|has no code)"):
        convert(text, "train.ipynb")


def test_notebook_in_another_language_is_refused() -> None:
    with pytest.raises(UsageError, match="is a notebook in R"):
        convert(of("x <- 1", kernelspec={"name": "ir", "display_name": "R", "language": "R"}), "train.ipynb")


def test_notebook_of_format_3() -> None:
    made = convert((DATA / "format3.ipynb").read_text(), "old.ipynb")
    assert "__gpurun__.cell(1)\nx = 1\n" in made.source


def test_real_notebook_compiles() -> None:
    made = convert((DATA / "exploring.ipynb").read_text(), "notebooks/exploring.ipynb")
    compile(made.source, script_name("notebooks/exploring.ipynb"), "exec")
    assert script_name("notebooks/exploring.ipynb") == "exploring.py"


def test_missing_nbconvert_is_an_error_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpurun.notebook.convert._NEEDED", ("nbformat", "no_such_package"))
    with pytest.raises(UsageError, match="no_such_package is not installed") as error:
        converted("x = 1")
    assert "pip install nbconvert ipython" in error.value.next_step
