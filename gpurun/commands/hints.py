"""What a traceback or a log's end means for somebody who trains, where that is well known. Never more than a hint."""

from __future__ import annotations

import re
from collections.abc import Callable

# (what the text says, what may help), the first match counts.
_HINTS: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (
        r"No module named '([\w]+)",
        lambda m: (
            f"add the package of `{m[1]}` to requirements.txt; for a folder of yours, see that it travels: "
            "gpurun submit --dry-run"
        ),
    ),
    (
        r"CUDA out of memory|CUDA error: out of memory|OutOfMemoryError",
        lambda m: "the GPU's memory is full: a smaller batch, precision 16-mixed or bf16-mixed, or more GPUs",
    ),
    (
        r"Bus error|unable to open shared memory object|insufficient shared memory",
        lambda m: "DataLoader workers ran out of shared memory: --shm-size 8GB",
    ),
    (
        r"(?:FileNotFoundError|No such file or directory):? .*?['\"]([^'\"\n]+)['\"]",
        lambda m: (
            f"{m[1]} is not there on the host: is it left out of the sync (gpurun submit --dry-run shows that), "
            "or data to be brought by gpurun push, --mount or data = [...]?"
        ),
    ),
    (
        r"No space left on device",
        lambda m: "the host's disk is full: gpurun prune --fetched, or a roomier root for the host",
    ),
    (
        r"No CUDA GPUs are available|MisconfigurationException: No supported gpu backend",
        lambda m: (
            "the job sees no GPU: --gpus 1, or accelerator='auto' in the Trainer; with both, gpurun host check --gpu "
            "says what is amiss"
        ),
    ),
    (
        r"CUDA driver version is insufficient|driver on your system is too old",
        lambda m: "the host's NVIDIA driver is too old for this image: gpurun host check says which it runs",
    ),
    (
        r"No kernel image is available|no kernel image is available",
        lambda m: "this image's PyTorch knows nothing of this GPU: another image with --image",
    ),
    (
        r"NCCL (?:error|WARN)|ncclSystemError|ncclInternalError",
        lambda m: "the GPUs could not talk to each other: try -e NCCL_DEBUG=INFO, then -e NCCL_P2P_DISABLE=1",
    ),
    (
        r"Read-only file system",
        lambda m: "write below the working directory, $GPURUN_DATA or $TMPDIR",
    ),
    (
        r"Temporary failure in name resolution|ConnectionError|Max retries exceeded",
        lambda m: "the host could not reach the network: fetch the data here and gpurun push it",
    ),
)


def hint(text: str) -> str | None:
    """A sentence that may help with what `text` (a traceback, the end of a log) says."""
    for pattern, say in _HINTS:
        match = re.search(pattern, text)
        if match:
            return say(match)
    return None
