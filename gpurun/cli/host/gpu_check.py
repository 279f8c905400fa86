"""`gpurun host check --gpu`, shown."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from gpurun.agent import vocabulary as words
from gpurun.cli import output
from gpurun.cli.asking import report as report_finding
from gpurun.cli.asking import report_sum
from gpurun.cli.progress import Say
from gpurun.cli.reporting import drawn
from gpurun.cli.screen import Screen
from gpurun.cli.terminal import harmless_output
from gpurun.events import Doing

if TYPE_CHECKING:
    from gpurun.config.hosts import HostProfile
    from gpurun.hosts.findings import Finding
    from gpurun.hosts.verify import Findings, Verdict, Wish
    from gpurun.remote.wire import Wire


class _Listening(Screen):
    """The run's log is its findings."""

    def __init__(self, host: str, say: Say, findings: Findings) -> None:
        super().__init__(host, say, log_to_stderr=True)
        self._findings = findings

    def log(self, data: bytes) -> None:
        self._say("")
        self._findings.feed(data)


def run(wire: Wire, host: HostProfile, wish: Wish, *, as_json: bool) -> int | None:
    """Try the GPUs; the exit code."""
    from gpurun.hosts import verify

    def tell(finding: Finding) -> None:
        if not as_json:
            report_finding(finding)

    findings = verify.Findings(tell, lambda data: output.say_bytes(harmless_output(data)))
    with drawn(f"sending to {host.name}") as report:
        report(Doing(f"asking {host.name}"))
        findings.add(verify.look(wire))
        record = verify.start(wire, host, wish, report)
        try:
            verdict = verify.follow(wire, record, _Listening(host.name, report.say, findings), findings)
        except KeyboardInterrupt:
            output.after_interrupt()
            verify.stop(wire, record["id"])
            output.say(f"{record['id']} is stopped")
            return words.EXIT_INTERRUPTED
        if verdict.ok:
            verify.clear(wire, verdict.record["id"])
    if as_json:
        output.json(_as_document(host.name, verdict))
        return None if verdict.ok else words.EXIT_FAILED
    report_sum(verdict.findings)
    if not verdict.ok:
        output.next_step(f"gpurun logs {verdict.record['id']}", "all that the check printed")
    return None if verdict.ok else words.EXIT_FAILED


def _as_document(host: str, verdict: Verdict) -> dict[str, object]:
    return {
        "host": host,
        "ok": verdict.ok,
        "run": verdict.record["id"],
        "runtime": verdict.record["runtime"],
        "gpus": verdict.record["gpus"],
        "findings": [asdict(each) for each in verdict.findings],
    }
