"""What follows for jobs from what a host's agent found: each look is a pure function that says how to mend what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpurun.agent import vocabulary as words
from gpurun.job import images as catalogue
from gpurun.job.images import Base, Catalogue

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import CheckAnswer, HomeFacts
    from gpurun.agent.schema.host import EngineFacts, FoundPython, HostFacts

OK, WARN, FAIL = "ok", "warn", "fail"
GB = 1_000_000_000
TIGHT_DISK, FULL_DISK = 30 * GB, 5 * GB  # the pinned image alone takes 15
CLOCK_APART = 30.0  # seconds
RSYNC_FLOOR = (3, 1, 3)  # compares nanoseconds
RSYNC_FIXED, TOOLKIT_FIXED = (3, 4, 0), (1, 17, 8)  # with the fixes of known holes


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's: what was looked at, `ok`, `warn` or `fail`, what was found, how to mend it."""

    topic: str
    status: str
    found: str
    mend: str = ""


def examine(host: str, answer: CheckAnswer, *, noise: bytes, asked: tuple[float, float]) -> Iterator[Finding]:
    """Everything that follows from the agent's answer. `asked`: the laptop's clock before and after the question."""
    facts = answer["facts"]
    yield Finding("python", OK, f"{facts['python']['version']} ({facts['python']['path']})")
    yield start_up_files(noise)
    yield rsync(answer["rsync"])
    yield engine(facts)
    yield gpus(facts)
    if facts["gpus"] and facts["engine"]:
        yield toolkit(facts["engine"]["toolkit"], answer["toolkit"])
        yield images(facts["driver"], catalogue.read())
    if facts["engine"] and answer["engine_free"] is not None:
        yield engine_disk(facts["engine"], answer["engine_free"], catalogue.read().default)
    yield pythons(host, facts, answer["pythons"])
    yield disk(facts)
    yield inodes(facts)
    yield home(answer["home"])
    yield logout(facts, answer["ends_at_logout"])
    yield clock(facts["clock"], asked)


def start_up_files(noise: bytes) -> Finding:
    if not noise.strip():
        return Finding("start-up files", OK, "silent, as rsync needs them")
    first = noise.strip().splitlines()[0].decode("utf-8", "replace")[:60]
    return Finding(
        "start-up files",
        FAIL,
        f"a start-up file of the shell there prints {first!r} in front of every answer, which breaks rsync",
        "put this at the top of ~/.bashrc there: `case $- in *i*) ;; *) return;; esac`",
    )


def rsync(version: str | None) -> Finding:
    if version is None:
        mend = "sudo apt install rsync (or dnf, zypper, apk) on the host"
        return Finding("rsync there", FAIL, "there is no rsync on the host", mend)
    return of_rsync("rsync there", version)


def of_rsync(topic: str, version: str) -> Finding:
    """Of the one at either end."""
    if _number(version) < RSYNC_FLOOR:
        return Finding(topic, FAIL, f"{version} is too old; 3.1.3 compares times exactly", "install a newer rsync")
    if _number(version) < RSYNC_FIXED:
        mend = "distributions mend older versions too: keep it updated"
        return Finding(topic, OK, f"{version}; 3.4.0 closed known holes", mend)
    return Finding(topic, OK, version)


def engine(facts: HostFacts) -> Finding:
    found, error = facts["engine"], facts["engine_error"]
    if error:
        bare = '--runtime bare, or runtime = "bare" in gpurun.toml, runs jobs without one'
        return Finding("engine", FAIL, error["what"], f"{error['next']}\n{bare}")
    if found is None:
        why = "this host is itself a container" if facts["container"] else "no docker on this host"
        return Finding("engine", WARN, f'{why}: jobs run without one (runtime = "bare")', "")
    kind = " rootless" * found["rootless"] + " userns-remap" * found["userns"] + " selinux" * found["selinux"]
    return Finding("engine", OK, f"{' '.join(found['argv'])} {found['version']}{kind}")


def gpus(facts: HostFacts) -> Finding:
    if facts["gpus_error"]:
        return Finding("GPUs", FAIL, facts["gpus_error"]["what"], facts["gpus_error"]["next"])
    if not facts["gpus"]:
        mend = "with GPUs in it, the host needs the NVIDIA driver; without, submit with --gpus 0"
        return Finding("GPUs", WARN, "none (nvidia-smi lists none)", mend)
    names = [gpu["name"] for gpu in facts["gpus"]]
    counted = ", ".join(f"{names.count(name)}x {name}" for name in dict.fromkeys(names))
    return Finding("GPUs", OK, f"{counted}, driver {facts['driver']}")


def toolkit(there: bool, version: str | None) -> Finding:
    if not there:
        return Finding("container toolkit", FAIL, "the engine cannot give GPUs to containers", words.TOOLKIT_NEXT_STEP)
    if version and _number(version) < TOOLKIT_FIXED:
        mend = f"1.17.8 closed a way out of the container: {words.TOOLKIT_GUIDE}"
        return Finding("container toolkit", WARN, f"{version} has a known hole", mend)
    return Finding("container toolkit", OK, version or "there")


def images(driver: str | None, known: Catalogue) -> Finding:
    """Which of gpurun's images the driver runs."""
    runs = [name for name, base in known.images.items() if not driver or _number(driver) >= _number(base.driver)]
    if known.default.name in runs:
        return Finding("images", OK, f"the driver runs {', '.join(runs)}")
    needs = known.default
    found = f"the driver {driver} is too old for {needs.name} (CUDA {needs.cuda}), which wants {needs.driver} or later"
    also = f"or use one that it runs: --image {runs[-1]}" if runs else "or name an image for an older CUDA: --image REF"
    return Finding("images", FAIL, found, f"update the NVIDIA driver; {also}")


def engine_disk(engine: EngineFacts, free: int, image: Base) -> Finding:
    found = f"{free / GB:.0f} GB free at {engine['root']}, where images lie"
    if free >= image.room:
        return Finding("image disk", OK, found)
    mend = f"{image.name} takes up to {image.room / GB:.0f} GB, if it is not there yet: docker system prune on the host"
    return Finding("image disk", WARN, found, mend)


def pythons(host: str, facts: HostFacts, found: list[FoundPython]) -> Finding:
    """For jobs without an engine."""
    having = [f"{each['path']} (torch {each['torch']})" for each in found if each["torch"]]
    if having:
        return Finding("torch", OK, ", ".join(having))
    if facts["engine"]:
        return Finding("torch", OK, "only in the image; no Python of the host has it, and none needs it")
    return Finding(
        "torch",
        WARN,
        "no Python of the host has torch, and there is no engine for an image that has it",
        f'install torch there, or name the Python that has it: python = "/path/to/python" under [hosts.{host}]',
    )


def disk(facts: HostFacts) -> Finding:
    free, total = facts["disk"]["free"], facts["disk"]["total"]
    found = f"{free / GB:.0f} of {total / GB:.0f} GB free at {facts['root']}"
    mend = 'gpurun prune --fetched, or name a roomier disk: root = "/path" in the host\'s profile'
    if free < FULL_DISK:
        return Finding("disk", FAIL, found, mend)
    return Finding("disk", WARN, found, mend) if free < TIGHT_DISK else Finding("disk", OK, found)


def inodes(facts: HostFacts) -> Finding:
    free, total = facts["disk"]["inodes_free"], facts["disk"]["inodes"]
    if not total:  # btrfs and the like count none
        return Finding("inodes", OK, "without limit")
    share = f"{100 * free / total:.0f}% free"
    if free < 100_000:
        return Finding("inodes", FAIL if free < 10_000 else WARN, share, "remove small files: gpurun prune --fetched")
    return Finding("inodes", OK, share)


def home(found: HomeFacts) -> Finding:
    machines, kind = found["machines"], found["type"]
    if machines > 1:
        mend = "that works; each run belongs to the machine it was submitted to"
        return Finding("shared home", OK, f"{machines} machines share gpurun's folder", mend)
    if kind.startswith(("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "fuse.", "afs")):
        mend = 'runs are slow to copy there; a local disk is better: root = "/path" in the host\'s profile'
        return Finding("shared home", WARN, f"gpurun's folder lies on a network disk ({kind})", mend)
    return Finding("shared home", OK, f"no, it lies on a local disk ({kind or 'unknown'})")


def logout(facts: HostFacts, ends: bool) -> Finding:
    if ends:
        return Finding(
            "after logout",
            FAIL,
            "systemd ends all processes of a user at logout there (KillUserProcesses), and so the jobs' supervisors",
            f"sudo loginctl enable-linger {facts['user']}",
        )
    return Finding("after logout", OK, "processes stay")


def clock(theirs: float, asked: tuple[float, float]) -> Finding:
    """How far the clocks are apart, at least: the answer was made somewhere between question and answer."""
    before, after = asked
    apart = max(before - theirs, theirs - after, 0.0)
    if apart > CLOCK_APART:
        way = "behind" if theirs < before else "ahead"
        mend = "sudo timedatectl set-ntp true, on whichever of the two is wrong"
        return Finding("clock", WARN, f"the host's clock is {apart:.0f} s {way} of this one", mend)
    return Finding("clock", OK, "agrees with this one")


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
