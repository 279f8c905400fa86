"""The reference says all that the schema knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.config.hosts import AddressConfig, HostProfile, Hosts
from gpurun.config.readers import keys
from gpurun.config.reference import descriptions, markdown, within
from gpurun.config.schema import JobConfig


def test_every_key_is_described() -> None:
    text = markdown()
    for schema in (JobConfig, Hosts, HostProfile, AddressConfig):
        told = descriptions(schema)
        for key in keys(schema):
            (row,) = [line for line in table(text, key) if told[key] in line]
            assert row.count("|") == 4


def table(text: str, key: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| `{key}` |")]


def test_defaults_are_shown() -> None:
    assert (
        '| `gpus` | number or `"all"` | How many GPUs, or `"all"`; 0 for a job on the CPU. Default: 1. |' in markdown()
    )


def test_the_readme_is_up_to_date() -> None:
    """Mend it with: python -m gpurun.config.reference README.md"""
    text = (Path(__file__).parents[3] / "README.md").read_text()
    assert within(text) == text


def test_a_text_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the marks"):
        within("# A page\n")
