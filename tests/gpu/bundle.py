"""Gather what a bare GPU machine may lack: `python -m tests.gpu.bundle`, on a Debian machine with internet.

Makes build/gpu-bundle: `gpurun/` (wheels of what gpurun imports, and of the SSH server), `jobs/` (wheels of what the examples
import beside torch and Lightning), and `bin/`, `lib/`, `libexec/` (ssh and rsync with their libraries, from Debian packages).
torch, Lightning and what comes with them are the machine's own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
BUNDLE = REPOSITORY / "build" / "gpu-bundle"
PYTHONS = ("3.11", "3.12", "3.13")  # gpurun needs 3.11
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64")
MOST = 50 << 20  # bytes
SERVER = "asyncssh>=2.21"
# Writing logs needs no more of tensorboard's own needs; torch and numpy, which are large, are the machine's.
FOR_JOBS = (
    "tensorboard",
    "absl-py",
    "protobuf",
    "torchmetrics",
    "lightning-utilities",
    "packaging",
    "typing-extensions",
)
PROGRAMS = {
    "openssh-client": ("usr/bin/ssh", "usr/bin/ssh-keygen", "usr/bin/ssh-keyscan"),
    "rsync": ("usr/bin/rsync",),
}
# What the programs are linked with, but for the C library.
LIBRARIES = (
    "libacl1", "libcom-err2", "libgssapi-krb5-2", "libk5crypto3", "libkeyutils1", "libkrb5-3", "libkrb5support0", "liblz4-1",
    "libpcre2-8-0", "libpopt0", "libselinux1", "libssl3", "libxxhash0", "libzstd1", "zlib1g",
)  # fmt: skip
WRAPPER = """\
#!/bin/sh
here=$(cd "$(dirname "$0")/.." && pwd)
LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$here/libexec/${0##*/}" "$@"
"""


def main() -> int:
    shutil.rmtree(BUNDLE, ignore_errors=True)
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    download([*settings["project"]["dependencies"], SERVER], BUNDLE / "gpurun")
    download(FOR_JOBS, BUNDLE / "jobs", "--no-deps")
    unpack_programs()
    size = sum(path.stat().st_size for path in BUNDLE.rglob("*") if path.is_file())
    for folder, why in (
        ("gpurun", "what gpurun imports, and the SSH server of the test host"),
        ("jobs", "what the examples import beside torch and Lightning"),
        ("libexec", "programs; bin/ starts them with lib/"),
    ):
        names = sorted({path.name.split("-")[0] for path in (BUNDLE / folder).iterdir()})
        print(f"{folder}/  {why}:\n  {', '.join(names)}")
    print(f"{BUNDLE}: {size / (1 << 20):.1f} MiB")
    if size > MOST:
        print(f"that is more than {MOST >> 20} MiB", file=sys.stderr)
        return 1
    return 0


def download(requirements: Sequence[str], folder: Path, *options: str) -> None:
    """Fetch wheels of these requirements, and of what they need, for every Python."""
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    for python in PYTHONS:
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), *options, *platforms]
        argv += ["--python-version", python, "--implementation", "cp", "--only-binary=:all:", *requirements]
        subprocess.run(argv, check=True)


def unpack_programs() -> None:
    for folder in ("bin", "lib", "libexec"):
        (BUNDLE / folder).mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        here.chmod(0o755)  # apt downloads as a user of its own
        subprocess.run(["apt-get", "download", "-qq", *PROGRAMS, *LIBRARIES], cwd=here, check=True)
        for package in here.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, here / "tree"], check=True)
        for programs in PROGRAMS.values():
            for program in programs:
                shutil.copy2(here / "tree" / program, BUNDLE / "libexec")
                wrapper = BUNDLE / "bin" / Path(program).name
                wrapper.write_text(WRAPPER)
                wrapper.chmod(0o755)
        for library in (here / "tree").rglob("lib*.so.*"):
            if re.fullmatch(r"lib[\w+-]+\.so\.\d+", library.name):  # the name that programs ask for, often a link
                shutil.copy2(library, BUNDLE / "lib")


if __name__ == "__main__":
    sys.exit(main())
