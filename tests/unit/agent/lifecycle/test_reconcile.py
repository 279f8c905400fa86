"""The design's table, line by line. What each line does to a real run is in tests/lab."""

from __future__ import annotations

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.lifecycle import reconcile
from gpurun.agent.lifecycle.reconcile import Evidence, decide


@pytest.mark.parametrize(
    ("seen", "then"),
    [
        (Evidence(words.SYNCING, "absent", upload_idle=3599), reconcile.NOTHING),
        (Evidence(words.SYNCING, "absent", upload_idle=3601), reconcile.FAIL_SYNC),
        (Evidence(words.QUEUED, "absent"), reconcile.SUPERVISE),
        (Evidence(words.PREPARING, "absent"), reconcile.SUPERVISE),
        (Evidence(words.QUEUED, "created"), reconcile.SUPERVISE),
        (Evidence(words.PREPARING, "created"), reconcile.SUPERVISE),
        (Evidence(words.PREPARING, "absent", same_boot=False), reconcile.SUPERVISE),
        (Evidence(words.QUEUED, "running"), reconcile.SUPERVISE),
        (Evidence(words.PREPARING, "running"), reconcile.SUPERVISE),
        (Evidence(words.RUNNING, "running"), reconcile.SUPERVISE),
        (Evidence(words.QUEUED, "exited", exit_code=0), reconcile.RECORD_EXIT),
        (Evidence(words.RUNNING, "exited", exit_code=3), reconcile.RECORD_EXIT),
        (Evidence(words.RUNNING, "exited", exit_code=255, same_boot=True), reconcile.RECORD_EXIT),
        (Evidence(words.RUNNING, "exited", exit_code=255, same_boot=False), reconcile.LOST_REBOOT),
        (Evidence(words.RUNNING, "exited", made_up=True, same_boot=True), reconcile.RECORD_EXIT),
        (Evidence(words.RUNNING, "exited", made_up=True, same_boot=False), reconcile.LOST_REBOOT),
        (Evidence(words.RUNNING, "exited", exit_code=3, same_boot=False), reconcile.RECORD_EXIT),
        (
            Evidence(words.RUNNING, "exited", exit_code=255, same_boot=False, ended_before_boot=True),
            reconcile.RECORD_EXIT,
        ),
        (Evidence(words.RUNNING, "absent", same_boot=False), reconcile.LOST_REBOOT),
        (Evidence(words.RUNNING, "absent", same_boot=True), reconcile.LOST_REMOVED),
        (Evidence(words.QUEUED, "absent", between=True), reconcile.SUPERVISE),
        (Evidence(words.QUEUED, "exited", exit_code=3, same_boot=False, between=True), reconcile.SUPERVISE),
        (Evidence(words.QUEUED, "no_answer"), reconcile.NOTHING),
        (Evidence(words.RUNNING, "no_answer", same_boot=False), reconcile.NOTHING),
        *[(Evidence(end, "running"), reconcile.NOTHING) for end in words.ENDS],
    ],
)
def test_table(seen: Evidence, then: str) -> None:
    assert decide(seen) == then


@pytest.mark.parametrize("state", words.STATES)
@pytest.mark.parametrize("presence", reconcile.ANY)
def test_every_case_has_a_line(state: str, presence: str) -> None:
    decide(Evidence(state, presence))
