"""`gpurun init` writes examples/digits under another name, and never over what is there."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest

from gpurun.config.schema import JobConfig
from gpurun.errors import UsageError
from gpurun.project_template import FILES, example, write_project

CHECKOUT = Path(__file__).parents[2]


def test_the_list_of_files_is_what_the_example_holds() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT / "examples" / "digits",
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(FILES) == sorted(tracked.stdout.split())


def test_every_file_is_written_once(tmp_path: Path) -> None:
    written = write_project(tmp_path / "new" / "project", "vision")
    assert [str(path.relative_to(tmp_path / "new" / "project")) for path in written] == list(FILES)
    assert (tmp_path / "new/project/README.md").read_text().startswith("# vision\n")
    assert write_project(tmp_path / "new" / "project", "vision") == []


def test_the_code_is_the_examples(tmp_path: Path) -> None:
    write_project(tmp_path, "vision")
    for file in set(FILES) - {"README.md", "gpurun.toml"}:
        assert (tmp_path / file).read_bytes() == (example("digits") / file).read_bytes()


def test_what_exists_stays(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("mine\n")
    (tmp_path / "README.md").symlink_to("nowhere")
    written = {path.name for path in write_project(tmp_path, "vision")}
    assert (tmp_path / "train.py").read_text() == "mine\n"
    assert not (tmp_path / "nowhere").exists()
    assert written.isdisjoint({"train.py", "README.md"})
    assert "predict.py" in written


def test_a_file_where_a_folder_is_needed_is_told_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    with pytest.raises(UsageError, match="models is in the way"):
        write_project(tmp_path, "vision")
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


@pytest.mark.parametrize("name", ["vision", 'a "b" \\ c', "größe 🎲", "-x", "$(id)", "a\nb", "bad\udcff", "", "n" * 99])
def test_any_name_makes_a_valid_configuration(tmp_path: Path, name: str) -> None:
    write_project(tmp_path, name)
    config = JobConfig(**tomllib.loads((tmp_path / "gpurun.toml").read_text()))
    assert config.name
    assert config.name[:5] in {name[:5], "ab", "bad", "project"[:5]}


def test_every_key_that_the_comments_show_is_one_of_the_schema(tmp_path: Path) -> None:
    write_project(tmp_path, "vision")
    lines = (tmp_path / "gpurun.toml").read_text().splitlines()
    shown = [line.removeprefix("# ") for line in lines if " = " in line]
    config = JobConfig(**tomllib.loads("\n".join(shown)))
    assert len(shown) == len(config.model_fields_set) > 10
