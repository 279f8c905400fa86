"""`gpurun init` writes an example under another name, and never over what is there."""

from __future__ import annotations

import subprocess
from pathlib import Path

from gpurun.job.templates import TEMPLATES
from tests.unit.job.test_templates import every_template

CHECKOUT = Path(__file__).parents[3]


@every_template
def test_the_list_of_files_is_what_the_example_holds(template: str) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT / "examples" / template,
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(TEMPLATES[template]) == sorted(tracked.stdout.split())
