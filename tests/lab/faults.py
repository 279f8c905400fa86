"""Kills and races at random moments, and a count of what went wrong: `python -m tests.bench faults`, and a short form in the lab's tests.

The truth is what the jobs wrote themselves, a line at their beginning and one at their end. Every run that gpurun
acknowledged is held against these lines. Three things are counted, and each must be 0:

- duplicates: an attempt that began twice, or a run or an attempt that nobody asked for;
- lost: a run that was acknowledged and never began, or a result that is on no machine;
- wrong: a state that contradicts the lines.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpurun.agent import vocabulary as words
from tests.lab.host import steps
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop
from tests.lab.host.users import ADA
from tests.lab.jobs import PATIENCE, Jobs

SCRIPT = """\
import os, sys, time

def note(what):
    line = f"{what} {os.environ['GPURUN_RUN_ID']} {os.environ['GPURUN_ATTEMPT']}\\n".encode()
    file = os.open(os.path.join(os.environ["GPURUN_DATA"], "truth"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(file, line)
    os.fsync(file)

note("began")
with open("result.bin", "wb") as file:
    file.write(os.urandom(1 << 16))
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    time.sleep(0.01)
note("ended")
"""
SHORT = "0.3"  # seconds that a job takes
LONG = "600"


@dataclass
class Tally:
    """What came of one kind of fault."""

    name: str
    tries: int = 0
    duplicates: int = 0
    lost: int = 0
    wrong: int = 0
    details: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.duplicates or self.lost or self.wrong)

    def __str__(self) -> str:
        counts = f"{self.duplicates} duplicates, {self.lost} lost, {self.wrong} wrong states"
        return "\n    ".join([f"{self.name:32} {self.tries:4} tries: {counts}", *self.details])


@dataclass
class Faults:
    """Injects faults into one laptop and one host, which `alias` names. `runtime`: "docker" or "bare"."""

    laptop: Laptop
    host: LabHost
    alias: str
    runtime: str
    random: random.Random
    rounds: int = 0

    # The faults, each `tries` times.

    def client_killed(self, tries: int) -> Tally:
        """SIGKILL `gpurun submit` at a random moment and repeat it."""
        tally = Tally(f"submit killed ({self.runtime})")
        for _ in range(tries):
            submit = self._submit_line(SHORT)
            before = self._runs()
            killed = self.laptop.start(*submit, cwd=self._project)
            self._pause(1.2)
            killed.kill()
            printed = killed.communicate()[0].decode().split()
            # A submit that printed its id was complete: repeating it asks for another run.
            asked = {*printed, self._ask(*submit, cwd=self._project).strip()}
            self._settle(tally, asked, before=before)
        return tally

    def submit_submit(self, tries: int) -> Tally:
        """Race two equal submits."""
        tally = Tally(f"submit / submit ({self.runtime})")
        for _ in range(tries):
            before = self._runs()
            submit = self._submit_line(SHORT)
            outputs = self._race(submit, submit)
            asked = {out.strip() for code, out in outputs if code == 0}
            if len(asked) != 2 or self._runs() - before != asked:
                tally.duplicates += 1
                tally.details.append(f"two submits printed {outputs}, the host has {self._runs() - before}")
            self._settle(tally, asked)
        return tally

    def submit_stop(self, tries: int) -> Tally:
        """Stop a run at a random moment of its start."""
        tally = Tally(f"submit / stop ({self.runtime})")
        for _ in range(tries):
            run = self._ask(*self._submit_line(LONG), cwd=self._project).strip()
            self._pause(1.0)
            self._ask("stop", run)
            self._settle(tally, {run}, stopped=True)
        return tally

    def resume_resume(self, tries: int) -> Tally:
        """Race two `resume` of a run that was stopped."""
        tally = Tally(f"resume / resume ({self.runtime})")
        for _ in range(tries):
            run = self._ask(*self._submit_line(LONG), cwd=self._project).strip()
            self._until_began(run, 1)
            self._ask("stop", run)
            outputs = self._race(("resume", run), ("resume", run))
            accepted = sum(code == 0 for code, _ in outputs)
            self._until_began(run, 2)
            self._ask("stop", run)
            began = {attempt for what, name, attempt in self._truth() if what == "began" and name == run}
            if accepted == 0 or began != {"1", "2"}:
                tally.duplicates += 1
                tally.details.append(f"{run}: {accepted} resumes were accepted, and attempts {sorted(began)} began")
            self._settle(tally, {run}, stopped=True)
        return tally

    def fetch_rm(self, tries: int) -> Tally:
        """Race `fetch` and `rm`: what the job wrote must be on one of the two machines."""
        tally = Tally(f"fetch / rm ({self.runtime})")
        for _ in range(tries):
            run = self._ask(*self._submit_line(SHORT), cwd=self._project).strip()
            self._settle(tally, {run})
            folder = self.host.home(ADA) / ".gpurun/runs" / run
            result = (folder / "workspace/result.bin").read_bytes()
            self._race(("fetch", run), ("rm", run), wait=self.random.uniform(0, 1.5))
            copies = [folder / "workspace/result.bin", self._project / "fetched" / run / "result.bin"]
            if not any(copy.exists() and copy.read_bytes() == result for copy in copies):
                tally.lost += 1
                tally.details.append(f"{run}: its result is nowhere")
        return tally

    def supervisor_killed(self, tries: int) -> Tally:
        """SIGKILL the supervisor at a random moment of the run."""
        return self._disturbed(f"supervisor killed ({self.runtime})", tries, self._kill_supervisor)

    def keeper_killed(self, tries: int) -> Tally:
        """SIGKILL one or both of the processes that wait for a job without an engine.

        No attempt may follow one that ended. With both killed nobody knows how the job ended, and gpurun must say so.
        """
        return self._disturbed("keeper killed (bare)", tries, self._kill_keepers, "--retries", "1")

    def engine_killed(self, tries: int) -> Tally:
        """SIGKILL dockerd and start it again."""
        return self._disturbed("dockerd killed (docker)", tries, self._kill_engine)

    def sshd_killed(self, tries: int) -> Tally:
        """SIGKILL every process of sshd while `submit -f` runs, and repeat what broke off."""
        tally = Tally(f"sshd killed ({self.runtime})")
        for _ in range(tries):
            before = self._runs()
            submit = self._submit_line(SHORT)
            first = self.laptop.start(*submit, cwd=self._project)
            self._pause(1.2)
            self._kill_sshd()
            printed = first.communicate(timeout=PATIENCE * 2)[0].decode().split()
            asked = set(printed) if first.returncode == 0 else {self._ask(*submit, cwd=self._project).strip(), *printed}
            self._settle(tally, asked, before=before)
        return tally

    # What they are made of.

    @property
    def jobs(self) -> Jobs:
        return Jobs(self.laptop, self.host, self.alias)

    @functools.cached_property
    def _project(self) -> Path:
        return self.laptop.project({"gpurun.toml": "", "train.py": SCRIPT})

    def _submit_line(self, seconds: str, *options: str) -> tuple[str, ...]:
        """A submit whose arguments differ from those of every other round, so that no round repeats another's."""
        self.rounds += 1
        where = ("-H", self.alias, "-g", "0", "--runtime", self.runtime)
        return ("submit", "train.py", *where, *options, "--", seconds, str(self.rounds))

    def _disturbed(self, name: str, tries: int, disturb: Callable[[], None], *options: str) -> Tally:
        tally = Tally(name)
        for _ in range(tries):
            run = self._ask(*self._submit_line("1", *options), cwd=self._project).strip()
            self._pause(2.0)
            disturb()
            self._settle(tally, {run})
        return tally

    def _settle(self, tally: Tally, runs: set[str], *, stopped: bool = False, before: set[str] | None = None) -> None:
        """Wait until these runs have ended, and hold what gpurun says of them against the truth.

        `before`: the runs that were there when these were asked for; the host may have no others.
        """
        tally.tries += 1
        for extra in set() if before is None else self._runs() - before - runs:
            tally.duplicates += 1
            tally.details.append(f"{extra}: nobody asked for it")
        for run in sorted(runs):
            record = self.jobs.until(run, lambda record: not record["live"])
            state, truth = record["state"], [(what, attempt) for what, name, attempt in self._truth() if name == run]
            counted = Counter(attempt for what, attempt in truth if what == "began")
            ended = [attempt for what, attempt in truth if what == "ended"]
            again = [attempt for attempt in counted if any(int(attempt) > int(first) for first in ended)]
            if again or any(count > 1 for count in counted.values()):
                tally.duplicates += 1
                tally.details.append(f"{run}: {truth}")
            if not counted and not stopped and state != words.STOPPED:
                tally.lost += 1
                tally.details.append(f"{run}: {state} ({record['reason']}: {record['message']}), and it never began")
            unknown = state == words.LOST and record["reason"] in ("keeper", "engine")
            # An engine that was killed ends what runs when it is back: a job may be behind its last line by then.
            unknown |= (state, record["reason"], record["exit_code"]) == (words.FAILED, "signal", 0)
            if not (unknown or _is_true(state, bool(ended), stopped=stopped)):
                tally.wrong += 1
                tally.details.append(f"{run}: {state} ({record['reason']}: {record['message']}), the truth is {truth}")

    def _ask(self, *arguments: str, cwd: Path | None = None) -> str:
        return self.laptop.gpurun(*arguments, cwd=cwd, timeout=300).stdout

    def _race(self, *lines: Sequence[str], wait: float = 0.0) -> list[tuple[int, str]]:
        """Start these commands together, the later ones after `wait` seconds; exit code and output of each."""
        started: list[subprocess.Popen[bytes]] = []
        for line in lines:
            if started and wait:
                time.sleep(wait)
            started.append(self.laptop.start(*line, cwd=self._project))
        outputs = [process.communicate(timeout=300)[0].decode() for process in started]
        return [(process.returncode, out) for process, out in zip(started, outputs, strict=True)]

    def _pause(self, longest: float) -> None:
        time.sleep(self.random.uniform(0, longest))

    def _runs(self) -> set[str]:
        """The ids of all runs on the host."""
        folder = self.host.home(ADA) / ".gpurun/runs"
        with contextlib.suppress(FileNotFoundError):
            return {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        return set()

    def _truth(self) -> list[tuple[str, str, str]]:
        """What the jobs wrote: ("began" or "ended", run, attempt)."""
        file = self.host.home(ADA) / ".gpurun/data/vision/truth"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(what, run, attempt) for what, run, attempt in map(str.split, lines)]

    def _until_began(self, run: str, attempt: int) -> None:
        steps.until(
            lambda: ("began", run, str(attempt)) in self._truth(),
            step=f"attempt {attempt} of {run}",
            seconds=PATIENCE,
        )

    def _kill_supervisor(self) -> None:
        for run in self._runs():
            _kill(self.jobs.supervisors(run))

    def _kill_keepers(self) -> None:
        keepers = [pid for pid in self.host.box.processes(ADA.uid) if b"GPURUN_KEEPER=" in _read(pid, "environ")]
        _kill(self.random.sample(keepers, self.random.randint(1, len(keepers))) if keepers else [])

    def _kill_engine(self) -> None:
        assert self.host.engine is not None
        self.host.engine.kill()
        self.host.engine.start()

    def _kill_sshd(self) -> None:
        _kill([pid for pid in self.host.box.processes() if b"sshd" in _read(pid, "cmdline").split(b"\0")[0]])
        self.host.sshd.start()


def _is_true(state: str, ended: bool, *, stopped: bool) -> bool:
    """A job that came to its end succeeded, unless a stop was asked for; no other did."""
    if stopped:
        return state == words.STOPPED or (ended and state == words.SUCCEEDED)
    return (state == words.SUCCEEDED) == ended


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _read(pid: int, name: str) -> bytes:
    """Return the content of /proc/PID/NAME; empty when the process is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def inject(
    laptop: Laptop, hosts: tuple[LabHost, LabHost], *, kills: int, races: int, deaths: int, seed: int
) -> list[Tally]:
    """Inject every fault: `kills` of the client, `races` of each pair, `deaths` of each process of a host.

    `hosts`: the one with an engine and the bare one. Each tally is printed to stderr as soon as it stands.
    """
    gpu_host, bare_host = hosts
    drawn = random.Random(seed)
    docker = Faults(laptop, gpu_host, "ada", "docker", drawn)
    bare = Faults(laptop, bare_host, "bare", "bare", drawn)
    plan: list[tuple[Callable[[int], Tally], int]] = [
        (docker.client_killed, kills),
        (docker.submit_submit, races),
        (docker.submit_stop, races),
        (docker.resume_resume, races),
        (docker.fetch_rm, races),
        (docker.supervisor_killed, deaths),
        (bare.supervisor_killed, deaths),
        (bare.keeper_killed, deaths),
        (docker.engine_killed, deaths),
        (docker.sshd_killed, deaths),
    ]
    tallies = []
    for fault, tries in plan:
        tallies.append(fault(tries))
        print(tallies[-1], file=sys.stderr, flush=True)
    return tallies
