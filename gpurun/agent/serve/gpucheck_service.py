"""Tries the GPUs of this run in the job's own Python: what PyTorch sees of them, and whether it computes rightly on each.

One finding a line, as JSON: `{"topic", "status": "ok"|"warn"|"fail", "found", "mend"}`. Ends with 1 when one of them is `fail`.
With `--device cpu` the same tries are made on the CPU.
"""

import argparse
import ctypes
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from told import only_installed, told

OK, WARN, FAIL = "ok", "warn", "fail"
SIZE = 1024  # rows and columns of the matrices
# The largest error of an element, in units of its typical size sqrt(SIZE): rounding of the result, some ten times over.
TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
TOGETHER_IN = 120.0  # seconds for the GPUs to find each other and add up
LITTLE_SHM = 1 << 30
GB = 1 << 30

# What cuInit of the driver's library says: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html (CUresult)
DRIVER_SAYS = {
    100: (
        "the driver finds no GPU that it may use",
        "see what `nvidia-smi` says on the host, and CUDA_VISIBLE_DEVICES",
    ),
    101: ("the driver was asked for a GPU that is not there", "see what `nvidia-smi -L` says on the host"),
    802: (
        "the driver waits for the fabric manager, which GPUs with NVSwitch need",
        "sudo systemctl start nvidia-fabricmanager on the host",
    ),
    803: (
        "the driver's library and its kernel module are of two versions: it was updated without a reboot",
        "reboot the host",
    ),
    804: (
        "the driver is too old for this image, and this GPU takes no compatibility package",
        "update the driver on the host, or take an image for an older CUDA: --image",
    ),
    999: (
        "the driver fails for a reason that it does not tell",
        "look at `dmesg` on the host; a reboot often mends it",
    ),
}

Finding = Dict[str, str]
Process = Any  # a subprocess.Popen of bytes, which Python 3.8 cannot spell


def finding(topic: str, status: str, found: str, mend: str = "") -> Finding:
    return {"topic": topic, "status": status, "found": found, "mend": mend}


# --- without a GPU: why


def why_no_cuda(built_for: Optional[str], *, container: bool) -> Finding:
    """Why `torch.cuda.is_available()` is false. `built_for`: torch.version.cuda."""
    if built_for is None:
        mend = "take an image, or a Python of the host, whose PyTorch is built for CUDA"
        return finding("CUDA", FAIL, "this PyTorch is built for the CPU alone", mend)
    # As vocabulary.TOOLKIT_MEND, which cannot be imported here.
    toolkit = "on the host, tell the engine of the NVIDIA Container Toolkit:\n%s" % (
        "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
    )
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        place = "in this container" if container else "on this host"
        mend = toolkit if container else "install the NVIDIA driver"
        return finding("CUDA", FAIL, "the driver's library (libcuda.so.1) is not %s" % place, mend)
    speaks = driver_speaks(driver)
    code = int(driver.cuInit(0))
    if speaks and speaks[0] < int(built_for.split(".")[0]):
        what = "the driver is too old for this image: it speaks CUDA %d.%d at most, the image CUDA %s" % (
            *speaks,
            built_for,
        )
        return finding("CUDA", FAIL, what, "update the driver on the host, or take an image for an older CUDA: --image")
    if code in DRIVER_SAYS:
        what, mend = DRIVER_SAYS[code]
        return finding("CUDA", FAIL, what, mend)
    if container and not os.path.exists("/dev/nvidiactl"):
        return finding("CUDA", FAIL, "the engine gave this container no GPU (/dev/nvidiactl is not there)", toolkit)
    return finding(
        "CUDA", FAIL, "PyTorch sees no GPU; the driver's cuInit ended with %d" % code, "look at `dmesg` on the host"
    )


def driver_speaks(driver: Any) -> Optional[Tuple[int, int]]:
    """The newest CUDA that the driver knows, as (12, 8)."""
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return version.value // 1000, version.value % 1000 // 10


# --- one GPU


def matrix_error(torch: Any, device: str, dtype: str) -> float:
    """The largest error of a matrix product on `device`, against the CPU in double precision; see TOLERANCES."""
    generator = torch.Generator().manual_seed(0)
    kind = getattr(torch, dtype)
    # Rounded first: what is compared is the product, not the rounding of what goes into it.
    left, right = (torch.randn(SIZE, SIZE, generator=generator).to(kind) for _ in range(2))
    wanted = left.double() @ right.double()
    made = (left.to(device) @ right.to(device)).double().cpu()
    error: float = (made - wanted).abs().max().item() / SIZE**0.5
    return error


def try_product(torch: Any, device: str, name: str, dtype: str) -> Finding:
    topic = "%s %s" % (name, dtype)
    try:
        began = time.monotonic()
        error = matrix_error(torch, device, dtype)
        took = time.monotonic() - began
    except RuntimeError as refused:
        return finding(topic, FAIL, first_line(str(refused)), mend_for(str(refused)))
    if not error < TOLERANCES[dtype]:  # also for a result that is no number
        mend = "this GPU computes wrongly: do not train on it; look for Xid lines in `dmesg` on the host"
        return finding(topic, FAIL, "a matrix product differs from the CPU's by %.2g" % error, mend)
    return finding(topic, OK, "a matrix product is right, to %.1g (%.1f s)" % (error, took))


def mend_for(said: str) -> str:
    text = said.lower()
    if "no kernel image" in text:
        return "this image's PyTorch knows nothing of this GPU: take a newer one, --image v2.11"
    if "out of memory" in text:
        return "somebody else holds the GPU's memory: see `nvidia-smi` on the host"
    if "uncorrectable ecc" in text:
        return "this GPU's memory is broken: reset it (sudo nvidia-smi -r), or have it replaced"
    return "look at `dmesg` and `nvidia-smi` on the host"


def precisions(torch: Any, index: int) -> Finding:
    """Which of the half precisions the GPU computes in by itself."""
    major, minor = torch.cuda.get_device_capability(index)
    fp16, bf16 = (major, minor) >= (5, 3), major >= 8
    told_so = ["fp16" if fp16 else "", "bf16" if bf16 else ""]
    name = "GPU %d precision" % index
    found = "native: " + (", ".join(filter(None, told_so)) or "none") + " (compute capability %d.%d)" % (major, minor)
    if fp16 and bf16:
        return finding(name, OK, found)
    mend = 'use precision="16-mixed" in place of bf16 there' if fp16 else 'use precision="32-true" there'
    return finding(name, WARN, found, mend)


def each_gpu(torch: Any) -> Iterator[Finding]:
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        name = "GPU %d" % index
        yield finding(name, OK, "%s, %.0f GB" % (about.name, about.total_memory / GB))
        yield precisions(torch, index)
        for dtype in TOLERANCES:
            if dtype == "bfloat16" and torch.cuda.get_device_capability(index)[0] < 8:
                continue  # emulated: right, and of no use
            yield try_product(torch, "cuda:%d" % index, name, dtype)


def count(leased: int, names: List[str]) -> Finding:
    """Whether all that this run was given are there; `names` are those that PyTorch sees."""
    seen = len(names)
    what = "PyTorch sees %d GPU%s" % (seen, "s" * (seen != 1))
    if seen == leased:
        return finding("CUDA", OK, what)
    what += ", and this run was given %d" % leased
    if any(" MIG " in name for name in names):
        return finding("CUDA", WARN, what, "a process can use one MIG slice: ask for one")
    return finding("CUDA", FAIL, what, "see what `nvidia-smi -L` says on the host")


# --- several GPUs


def together(backend: str, world: int) -> Finding:
    """All GPUs add up a tensor, each in a process of its own, as DDP does."""
    topic = "between GPUs"
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, os.path.abspath(__file__), "--backend", backend, "--world", str(world)]
        argv += ["--store", os.path.join(folder, "store")]
        env = {"NCCL_DEBUG": "WARN", **os.environ}
        began = time.monotonic()
        logs = [os.path.join(folder, "log%d" % rank) for rank in range(world)]
        ranks = [start([*argv, "--rank", str(rank)], env, log) for rank, log in enumerate(logs)]
        failed = wait_for(ranks, began + TOGETHER_IN)
        if failed is None:
            took = time.monotonic() - began
            return finding(topic, OK, "%d processes added up over %s in %.1f s" % (world, backend, took))
        why = last_error(read(logs[failed])) or "no answer in %.0f s" % TOGETHER_IN
    mend = "try NCCL_P2P_DISABLE=1 (-e NCCL_P2P_DISABLE=1): where that helps, the host's IOMMU or its virtualization stands between"
    return finding(topic, FAIL, "%s: %s" % (backend, why), mend)


def start(argv: List[str], env: Dict[str, str], log: str) -> Process:
    with open(log, "wb") as file:
        return subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)


def wait_for(ranks: List[Process], until: float) -> Optional[int]:
    """None when all have done it; else which failed, or did not answer: one that waits for a failed one never ends."""
    try:
        while True:
            codes = [rank.poll() for rank in ranks]
            if not any(codes) and None not in codes:
                return None
            bad = next((rank for rank, code in enumerate(codes) if code), None)
            if bad is not None:
                return bad
            if time.monotonic() > until:
                return codes.index(None)
            time.sleep(0.1)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def read(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()


def add_up(backend: str, store: str, rank: int, world: int) -> None:
    """One process of `together`."""
    import torch
    import torch.distributed as dist

    device = "cpu"
    if backend == "nccl":
        torch.cuda.set_device(rank)
        device = "cuda:%d" % rank
    patience = datetime.timedelta(seconds=TOGETHER_IN)
    dist.init_process_group(backend, init_method="file://" + store, rank=rank, world_size=world, timeout=patience)
    numbers = torch.full((1 << 20,), float(rank + 1), device=device)
    dist.all_reduce(numbers)
    wanted = world * (world + 1) / 2
    if not bool((numbers == wanted).all()):
        raise SystemExit("the sum is %s in place of %s" % (float(numbers[0]), wanted))
    dist.destroy_process_group()


# --- the rest


def shared_memory(*, container: bool, place: str = "/dev/shm") -> Finding:
    try:
        found = os.statvfs(place)
    except OSError as error:
        return finding("shared memory", WARN, str(error), "DataLoader workers need it: num_workers=0 does without")
    size = found.f_blocks * found.f_frsize
    if size >= LITTLE_SHM:
        return finding("shared memory", OK, "%.1f GB for DataLoader workers" % (size / GB))
    mend = "--shm-size 8GB" if container else "sudo mount -o remount,size=8G /dev/shm on the host"
    return finding("shared memory", WARN, "%.2f GB is little for DataLoader workers" % (size / GB), mend)


def software(torch: Any) -> Finding:
    cuda, cudnn = torch.version.cuda, torch.backends.cudnn.version()
    built = "CUDA %s, cuDNN %s" % (cuda, cudnn) if cuda else "built for the CPU"
    return finding("software", OK, "PyTorch %s, %s, Python %s" % (torch.__version__, built, platform.python_version()))


def first_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[0][:300]


def last_error(said: str) -> str:
    """The line that tells most: NCCL's own complaint, else the last one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    nccl = [line for line in lines if "NCCL WARN" in line]
    return (nccl or lines or [""])[-1][:300]


def check(leased: int, *, container: bool) -> Iterator[Finding]:
    """Everything, on GPUs. `leased`: how many this run was given."""
    # What is compared is full precision: some images turn a shorter one on for all.
    os.environ.pop("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", None)
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    try:
        import torch
    except ImportError as error:
        mend = "name an image that has PyTorch, or the Python that has it: python in the host's profile"
        yield finding("software", FAIL, "PyTorch cannot be imported: %s" % first_line(str(error)), mend)
        return
    yield software(torch)
    if not torch.cuda.is_available():
        yield why_no_cuda(torch.version.cuda, container=container)
    else:
        yield count(leased, [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())])
        yield from each_gpu(torch)
        if torch.cuda.device_count() > 1:
            yield together("nccl", torch.cuda.device_count())
    yield shared_memory(container=container)


def check_on_cpu() -> Iterator[Finding]:
    """The same tries on the CPU: what they are worth without a GPU at hand."""
    import torch

    yield software(torch)
    for dtype in TOLERANCES:
        yield try_product(torch, "cpu", "CPU", dtype)
    yield together("gloo", 2)
    yield shared_memory(container=False)


def tell(findings: Iterator[Finding], out: Callable[[str], Any]) -> int:
    """The exit code."""
    worst = 0
    for one in findings:
        out(json.dumps(one))
        worst = max(worst, int(one["status"] == FAIL))
    return worst


def main(words: List[str]) -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--device", default="cuda")
    options.add_argument("--backend")
    options.add_argument("--store")
    options.add_argument("--rank", type=int)
    options.add_argument("--world", type=int)
    asked = options.parse_args(words)
    only_installed()
    if asked.rank is not None:
        add_up(asked.backend, asked.store, asked.rank, asked.world)
        return 0

    def out(line: str) -> None:
        print(line, flush=True)

    if asked.device == "cpu":
        return tell(check_on_cpu(), out)
    service = told()
    return tell(check(service["gpus"], container=service["container"]), out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
