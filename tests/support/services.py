"""The programs that the agent brings to services, loaded here as they are loaded there: as top-level modules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from gpurun.agent.setup import services


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of that name in serve/, for as long as a test runs."""
    monkeypatch.syspath_prepend(services.PROGRAMS)
    yield importlib.import_module(name)
    for each in (name, "told"):
        sys.modules.pop(each, None)
