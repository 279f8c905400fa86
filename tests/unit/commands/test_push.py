"""Data to a host, over real ssh and rsync."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gpurun.commands.push import parse_target, survey
from gpurun.errors import UsageError

if TYPE_CHECKING:
    pass


@pytest.mark.parametrize("target", ["box", ":x", "box:", ""])
def test_a_target_is_host_and_name(target: str) -> None:
    with pytest.raises(UsageError):
        parse_target(target)


def test_an_address_with_colons_keeps_them() -> None:
    assert parse_target("fe80::1:wiki") == ("fe80::1", "wiki")


def test_a_folder_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        survey(tmp_path / "gone")
