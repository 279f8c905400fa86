"""Names of lasting data folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.agent.errors import AgentError
from gpurun.agent.paths import HostPaths
from gpurun.agent.verbs import data


def test_the_folder_is_made(tmp_path: Path) -> None:
    answer = data.answer({"name": "imagenet-1k"}, HostPaths(str(tmp_path)))
    assert answer["path"] == str(tmp_path / "data" / "imagenet-1k")
    assert Path(answer["path"]).is_dir()
    assert answer["free"] > 0
    assert answer["empty"]
    (tmp_path / "data" / "imagenet-1k" / "x").touch()
    assert not data.answer({"name": "imagenet-1k"}, HostPaths(str(tmp_path)))["empty"]


@pytest.mark.parametrize("name", ["", "..", ".x", "-rf", "a/b", "a b", "a\n", "é", "a" * 101])
def test_a_name_is_a_plain_word(tmp_path: Path, name: str) -> None:
    with pytest.raises(AgentError, match="not a valid name"):
        data.answer({"name": name}, HostPaths(str(tmp_path)))
