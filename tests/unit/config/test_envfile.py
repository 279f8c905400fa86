"""Files of environment variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.config.envfile import read_env_file
from gpurun.errors import UsageError


def test_lines_as_people_write_them(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_bytes(b'\xef\xbb\xbfA=1\n# no\n\nexport B="two words"\nC=\'x\'\nD = a=b # kept\nE=\r\nF\nG="\n')
    values = {name: value and value.reveal() for name, value in read_env_file(file).items()}
    assert values == {"A": "1", "B": "two words", "C": "x", "D": "a=b # kept", "E": "", "F": None, "G": '"'}


def test_an_error_names_the_line_and_no_value(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("A=1\nhunter2 is=my password\n")
    with pytest.raises(UsageError) as error:
        read_env_file(file)
    assert error.value.what == f"{file}, line 2: begins with no name of a variable"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_env_file(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_env_file(tmp_path / "binary")
