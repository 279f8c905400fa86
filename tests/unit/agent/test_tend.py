"""The design's table, line by line. What each line does to a real run is in tests/lab."""

from __future__ import annotations

import pytest

from gpurun.agent import tend
from gpurun.agent import vocabulary as words
from gpurun.agent.tend import Evidence, decide


@pytest.mark.parametrize(
    ("seen", "then"),
    [
        (Evidence(words.SYNCING, "absent", upload_idle=3599), tend.NOTHING),
        (Evidence(words.SYNCING, "absent", upload_idle=3601), tend.FAIL_SYNC),
        (Evidence(words.QUEUED, "absent"), tend.SUPERVISE),
        (Evidence(words.PREPARING, "absent"), tend.SUPERVISE),
        (Evidence(words.QUEUED, "created"), tend.SUPERVISE),
        (Evidence(words.PREPARING, "created"), tend.SUPERVISE),
        (Evidence(words.PREPARING, "absent", same_boot=False), tend.SUPERVISE),
        (Evidence(words.QUEUED, "running"), tend.SUPERVISE),
        (Evidence(words.PREPARING, "running"), tend.SUPERVISE),
        (Evidence(words.RUNNING, "running"), tend.SUPERVISE),
        (Evidence(words.QUEUED, "exited", exit_code=0), tend.RECORD_EXIT),
        (Evidence(words.RUNNING, "exited", exit_code=3), tend.RECORD_EXIT),
        (Evidence(words.RUNNING, "exited", exit_code=255, same_boot=True), tend.RECORD_EXIT),
        (Evidence(words.RUNNING, "exited", exit_code=255, same_boot=False), tend.LOST_REBOOT),
        (Evidence(words.RUNNING, "exited", exit_code=3, same_boot=False), tend.RECORD_EXIT),
        (Evidence(words.RUNNING, "exited", exit_code=255, same_boot=False, ended_before_boot=True), tend.RECORD_EXIT),
        (Evidence(words.RUNNING, "absent", same_boot=False), tend.LOST_REBOOT),
        (Evidence(words.RUNNING, "absent", same_boot=True), tend.LOST_REMOVED),
        (Evidence(words.QUEUED, "absent", between=True), tend.SUPERVISE),
        (Evidence(words.QUEUED, "exited", exit_code=3, same_boot=False, between=True), tend.SUPERVISE),
        (Evidence(words.QUEUED, "no_answer"), tend.NOTHING),
        (Evidence(words.RUNNING, "no_answer", same_boot=False), tend.NOTHING),
        *[(Evidence(end, "running"), tend.NOTHING) for end in words.ENDS],
    ],
)
def test_table(seen: Evidence, then: str) -> None:
    assert decide(seen) == then


@pytest.mark.parametrize("state", words.STATES)
@pytest.mark.parametrize("presence", tend.ANY)
def test_every_case_has_a_line(state: str, presence: str) -> None:
    decide(Evidence(state, presence))
