"""List the host's GPUs and what runs on them, from `nvidia-smi`. Each question is next to the parser of its answer."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

from .. import error_codes, programs
from ..errors import AgentError

# Where nvidia-smi is when the PATH of a non-interactive login does not contain it (the second path is WSL's).
_ELSEWHERE = ("/usr/bin/nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi", "/opt/bin/nvidia-smi")
_MIB = 1 << 20

# The name comes last: no other field may contain a comma.
_GPU_FIELDS = "index,uuid,memory.total,memory.used,mig.mode.current,name"
_PROCESS_FIELDS = "gpu_uuid,pid,used_memory,process_name"
# Values of a field of a GPU that fell off the bus, or waits for a reset: no program can compute on it.
_BROKEN = ("err!", "[unknown error]", "[gpu is lost]", "[gpu requires reset]")


@dataclass(frozen=True)
class Gpu:
    """Describe one GPU, or one MIG slice of a GPU (`index` is then the index of that GPU)."""

    index: int
    uuid: str
    name: str
    memory: int  # bytes; 0 when the driver does not report it
    used: int  # bytes


def list_gpus(timeout: float = 10.0) -> List[Gpu]:
    """Return the GPUs that can compute. Empty without `nvidia-smi`; AgentError `nvidia_smi` when it hangs or fails."""
    program = find_nvidia_smi()
    if program is None:
        return []
    rows = parse_gpus(_ask(program, "--query-gpu=" + _GPU_FIELDS, timeout=timeout))
    if not any(sliced for _, sliced in rows):
        return [gpu for gpu, _ in rows]
    return with_slices(rows, parse_slices(_ask(program, "-L", timeout=timeout)))


def parse_gpus(text: str) -> List[Tuple[Gpu, bool]]:
    """Convert `--query-gpu` as CSV without header and units into (GPU, whether MIG slices it).

    Broken GPUs are left out.
    """
    rows = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",", 5)]
        if len(fields) < 6 or not fields[0].isdigit() or not fields[1].startswith("GPU-"):
            continue
        index, uuid, total, used, mig, name = fields
        if any(value.lower() in _BROKEN for value in (total, used, name)):
            continue
        rows.append((Gpu(int(index), uuid, name, _mebibytes(total), _mebibytes(used)), mig == "Enabled"))
    return rows


def parse_slices(text: str) -> Dict[str, List[Tuple[str, str]]]:
    """Convert `nvidia-smi -L` into GPU UUID -> its MIG slices as (UUID, profile), such as ("MIG-...", "1g.10gb")."""
    slices: Dict[str, List[Tuple[str, str]]] = {}
    parent = ""
    for line in text.splitlines():
        gpu = re.match(r"GPU \d+: .*\(UUID: (GPU-[^)]+)\)", line)
        mig = re.match(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)", line)
        if gpu:
            parent = gpu.group(1)
        elif mig:
            slices.setdefault(parent, []).append((mig.group(2), mig.group(1)))
    return slices


def with_slices(rows: List[Tuple[Gpu, bool]], slices: Dict[str, List[Tuple[str, str]]]) -> List[Gpu]:
    """Replace each sliced GPU by its slices: CUDA cannot use it as a whole.

    `nvidia-smi` does not report the memory use of a slice.
    """
    usable = []
    for gpu, sliced in rows:
        if not sliced:
            usable.append(gpu)
            continue
        for uuid, profile in slices.get(gpu.uuid, []):
            size = re.search(r"(\d+)gb", profile)
            memory = int(size.group(1)) << 30 if size else 0
            usable.append(Gpu(gpu.index, uuid, "%s MIG %s" % (gpu.name, profile), memory, 0))
    return usable


def processes(timeout: float = 10.0) -> List[Tuple[str, int, str, int]]:
    """Return the processes that compute: (GPU UUID, pid, program, bytes). Call this for a host that has GPUs.

    Raises AgentError `nvidia_smi` without an answer: a missing answer does not mean that no process computes.
    """
    program = find_nvidia_smi()
    if program is None:
        raise _missing_error("nvidia-smi")
    return parse_processes(_ask(program, "--query-compute-apps=" + _PROCESS_FIELDS, timeout=timeout))


def parse_processes(text: str) -> List[Tuple[str, int, str, int]]:
    rows = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",", 3)]
        if len(fields) == 4 and fields[1].isdigit():
            rows.append((fields[0], int(fields[1]), fields[3], _mebibytes(fields[2])))
    return rows


def driver_version(timeout: float = 10.0) -> Optional[str]:
    """Return the driver's version, such as "570.86.15"; None without `nvidia-smi` or a GPU."""
    program = find_nvidia_smi()
    if program is None:
        return None
    return parse_driver(_ask(program, "--query-gpu=driver_version", timeout=timeout))


def parse_driver(text: str) -> Optional[str]:
    match = re.search(r"^\s*(\d+(?:\.\d+)+)\s*$", text, re.MULTILINE)
    return match.group(1) if match else None


def find_nvidia_smi() -> Optional[str]:
    for name in ("nvidia-smi", *_ELSEWHERE):
        path = shutil.which(name)
        if path is not None:
            return path
    return None


def _missing_error(program: str) -> AgentError:
    return AgentError(error_codes.NVIDIA_SMI, "nvidia-smi is missing", "run `nvidia-smi` on the host", where=program)


def _mebibytes(value: str) -> int:
    """Return bytes; 0 for `[N/A]`, `[Not Supported]` and the like."""
    return int(value) * _MIB if value.isdigit() else 0


def _ask(program: str, question: str, *, timeout: float) -> str:
    argv = [program, question] if question == "-L" else [program, question, "--format=csv,noheader,nounits"]
    try:
        answer = programs.run(argv, timeout=timeout)
    except OSError:  # nvidia-smi is being replaced by another version
        raise _missing_error(program) from None
    if answer.timed_out:
        raise AgentError(
            error_codes.NVIDIA_SMI,
            "nvidia-smi did not answer in %g s" % timeout,
            "the driver hangs: run `nvidia-smi` and `dmesg` on the host; a reboot usually helps",
            where=program,
        )
    if not answer.ok and "No devices were found" not in answer.text + answer.error_text:
        output = (answer.error_text.splitlines() or ["exit code %d" % answer.code])[0]
        raise AgentError(
            error_codes.NVIDIA_SMI, "nvidia-smi failed: " + output, "run `nvidia-smi` on the host", where=program
        )
    return answer.text if answer.ok else ""
