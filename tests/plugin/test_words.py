"""The agent and the plugin, which does not import it, have the same names for the same files."""

from __future__ import annotations

import runpy

import pytest

from gpurun.agent import vocabulary
from tests.plugin.conftest import PLUGIN

TOLD = runpy.run_path(str(PLUGIN / "gpurun_lightning" / "told.py"))


@pytest.mark.parametrize("word", [word for word in TOLD if word.isupper()])
def test_the_same_words(word: str) -> None:
    assert TOLD[word] == getattr(vocabulary, word)
