"""The agent and the plugin, which cannot import it, have the same file names."""

from __future__ import annotations

import runpy

import pytest

from gpurun.agent import vocabulary
from tests.plugin.conftest import PLUGIN

SETTINGS = runpy.run_path(str(PLUGIN / "gpurun_lightning" / "settings.py"))


@pytest.mark.parametrize("word", [word for word in SETTINGS if word.isupper()])
def test_plugin_and_vocabulary_have_the_same_file_names(word: str) -> None:
    assert SETTINGS[word] == getattr(vocabulary, word)
