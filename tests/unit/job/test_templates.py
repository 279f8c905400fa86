"""`gpurun init` writes an example under another name, and never over what is there."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from gpurun.config.readers import values
from gpurun.config.schema import JobConfig
from gpurun.errors import UsageError
from gpurun.job.templates import DEFAULT, TEMPLATES, example, write_project

FILES = TEMPLATES[DEFAULT]

every_template = pytest.mark.parametrize("template", list(TEMPLATES))


@every_template
def test_every_file_is_written_once(tmp_path: Path, template: str) -> None:
    folder = tmp_path / "new" / "project"
    written = write_project(folder, "vision", template)
    assert [str(path.relative_to(folder)) for path in written] == list(TEMPLATES[template])
    assert (folder / "README.md").read_text().startswith("# vision\n")
    assert tomllib.loads((folder / "gpurun.toml").read_text())["name"] == "vision"
    assert write_project(folder, "vision", template) == []


@every_template
def test_the_code_is_the_examples(tmp_path: Path, template: str) -> None:
    write_project(tmp_path, "vision", template)
    for file in set(TEMPLATES[template]) - {"README.md", "gpurun.toml"}:
        assert (tmp_path / file).read_bytes() == (example(template) / file).read_bytes()


def test_a_template_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no template 'cifar'") as error:
        write_project(tmp_path / "new", "vision", "cifar")
    assert "digits, mnist, bare" in error.value.next_step
    assert not (tmp_path / "new").exists()


def test_what_exists_stays(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mine\n")
    (tmp_path / "README.md").symlink_to("nowhere")
    written = {path.name for path in write_project(tmp_path, "vision")}
    assert (tmp_path / ".gitignore").read_text() == "mine\n"
    assert not (tmp_path / "nowhere").exists()
    assert written.isdisjoint({".gitignore", "README.md"})
    (tmp_path / "train.py").unlink()
    assert write_project(tmp_path, "vision") == [tmp_path / "train.py"]


def test_other_code_is_not_mixed_with_ours(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("mine\n")
    with pytest.raises(UsageError, match=r"other code is there already: train\.py") as error:
        write_project(tmp_path, "vision")
    assert "gpurun init NAME" in error.value.next_step
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


def test_a_file_where_a_folder_is_needed_is_told_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    with pytest.raises(UsageError, match="models is in the way"):
        write_project(tmp_path, "vision")
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


@pytest.mark.parametrize("name", ["vision", 'a "b" \\ c', "größe 🎲", "-x", "$(id)", "a\nb", "bad\udcff", "", "n" * 99])
def test_any_name_makes_a_valid_configuration(tmp_path: Path, name: str) -> None:
    write_project(tmp_path, name)
    config = values(JobConfig, tomllib.loads((tmp_path / "gpurun.toml").read_text()))
    assert config["name"][:5] in {name[:5], "ab", "bad", "project"[:5]}


def test_every_key_that_the_comments_show_is_one_of_the_schema(tmp_path: Path) -> None:
    write_project(tmp_path, "vision")
    lines = (tmp_path / "gpurun.toml").read_text().splitlines()
    shown = [line.removeprefix("# ") for line in lines if " = " in line]
    assert len(shown) == len(values(JobConfig, tomllib.loads("\n".join(shown)))) > 10
