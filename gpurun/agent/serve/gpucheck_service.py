"""Test the GPUs of this run in the job's own Python: which ones PyTorch sees, and whether each one computes correctly.

Each finding is a line of JSON: `{"topic", "status": "ok"|"warn"|"fail", "found", "mend"}`. The exit code is 1 when one is `fail`.
With `--device cpu` the same tests run on the CPU.
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

from service_settings import import_only_installed, read_settings

OK, WARN, FAIL = "ok", "warn", "fail"
SIZE = 1024  # rows and columns of the matrices
# The largest allowed error of an element, relative to its typical size sqrt(SIZE): about ten times the rounding error.
TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
ALL_REDUCE_TIMEOUT = 120.0  # seconds
MIN_SHM = 1 << 30
GB = 1 << 30

# The error codes of cuInit: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html (CUresult)
DRIVER_ERRORS = {
    100: (
        "the driver finds no GPU that it may use",
        "check the output of `nvidia-smi` on the host, and CUDA_VISIBLE_DEVICES",
    ),
    101: ("the driver was asked for a GPU that is not there", "check the output of `nvidia-smi -L` on the host"),
    802: (
        "the driver waits for the fabric manager, which GPUs with NVSwitch need",
        "sudo systemctl start nvidia-fabricmanager on the host",
    ),
    803: (
        "the driver's library and its kernel module have different versions: the driver was updated without a reboot",
        "reboot the host",
    ),
    804: (
        "the driver is too old for this image, and this GPU supports no compatibility package",
        "update the driver on the host, or use an image for an older CUDA: --image",
    ),
    999: (
        "the driver fails without a reason",
        "check `dmesg` on the host; a reboot often helps",
    ),
}

Finding = Dict[str, str]
Process = Any  # a subprocess.Popen of bytes, which Python 3.8 cannot spell


def finding(topic: str, status: str, found: str, mend: str = "") -> Finding:
    return {"topic": topic, "status": status, "found": found, "mend": mend}


# --- why there is no GPU


def why_no_cuda(built_for: Optional[str], *, container: bool) -> Finding:
    """Find out why `torch.cuda.is_available()` is false. `built_for`: torch.version.cuda."""
    if built_for is None:
        mend = "use an image, or a Python of the host, whose PyTorch is built for CUDA"
        return finding("CUDA", FAIL, "this PyTorch is built for the CPU only", mend)
    # As vocabulary.TOOLKIT_NEXT_STEP, which cannot be imported here.
    toolkit = "on the host, configure the engine for the NVIDIA Container Toolkit:\n%s" % (
        "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
    )
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        place = "in this container" if container else "on this host"
        mend = toolkit if container else "install the NVIDIA driver"
        return finding("CUDA", FAIL, "the driver's library (libcuda.so.1) is not %s" % place, mend)
    supported = supported_cuda(driver)
    code = int(driver.cuInit(0))
    if supported and supported[0] < int(built_for.split(".")[0]):
        what = "the driver is too old for this image: it supports CUDA %d.%d at most, the image needs CUDA %s" % (
            *supported,
            built_for,
        )
        return finding("CUDA", FAIL, what, "update the driver on the host, or use an image for an older CUDA: --image")
    if code in DRIVER_ERRORS:
        what, mend = DRIVER_ERRORS[code]
        return finding("CUDA", FAIL, what, mend)
    if container and not os.path.exists("/dev/nvidiactl"):
        return finding("CUDA", FAIL, "the engine gave this container no GPU (/dev/nvidiactl is missing)", toolkit)
    return finding(
        "CUDA", FAIL, "PyTorch sees no GPU; the driver's cuInit ended with %d" % code, "check `dmesg` on the host"
    )


def supported_cuda(driver: Any) -> Optional[Tuple[int, int]]:
    """Return the newest CUDA version that the driver supports, as (12, 8)."""
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return version.value // 1000, version.value % 1000 // 10


# --- one GPU


def matrix_error(torch: Any, device: str, dtype: str) -> float:
    """Return the largest error of a matrix product on `device`, relative to the CPU in double precision; see TOLERANCES."""
    generator = torch.Generator().manual_seed(0)
    kind = getattr(torch, dtype)
    # Round the inputs first, so that the comparison shows the error of the product only.
    left, right = (torch.randn(SIZE, SIZE, generator=generator).to(kind) for _ in range(2))
    expected = left.double() @ right.double()
    product = (left.to(device) @ right.to(device)).double().cpu()
    error: float = (product - expected).abs().max().item() / SIZE**0.5
    return error


def check_product(torch: Any, device: str, name: str, dtype: str) -> Finding:
    topic = "%s %s" % (name, dtype)
    try:
        started = time.monotonic()
        error = matrix_error(torch, device, dtype)
        took = time.monotonic() - started
    except RuntimeError as failure:
        return finding(topic, FAIL, first_line(str(failure)), mend_for(str(failure)))
    if not error < TOLERANCES[dtype]:  # true also when the result is NaN
        mend = "do not train on this GPU, because its results are wrong; look for Xid lines in `dmesg` on the host"
        return finding(topic, FAIL, "a matrix product differs from the CPU's by %.2g" % error, mend)
    return finding(topic, OK, "a matrix product is correct to %.1g (%.1f s)" % (error, took))


def mend_for(message: str) -> str:
    text = message.lower()
    if "no kernel image" in text:
        return "this image's PyTorch does not support this GPU: use a newer one, --image v2.11"
    if "out of memory" in text:
        return "another program uses the GPU's memory: check `nvidia-smi` on the host"
    if "uncorrectable ecc" in text:
        return "this GPU's memory is defective: reset the GPU (sudo nvidia-smi -r), or have it replaced"
    return "check `dmesg` and `nvidia-smi` on the host"


def precisions(torch: Any, index: int) -> Finding:
    """Report which half precisions the GPU supports in hardware."""
    major, minor = torch.cuda.get_device_capability(index)
    fp16, bf16 = (major, minor) >= (5, 3), major >= 8
    native = ["fp16" if fp16 else "", "bf16" if bf16 else ""]
    name = "GPU %d precision" % index
    found = "native: " + (", ".join(filter(None, native)) or "none") + " (compute capability %d.%d)" % (major, minor)
    if fp16 and bf16:
        return finding(name, OK, found)
    mend = 'use precision="16-mixed" instead of bf16 on this GPU' if fp16 else 'use precision="32-true" on this GPU'
    return finding(name, WARN, found, mend)


def each_gpu(torch: Any) -> Iterator[Finding]:
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        name = "GPU %d" % index
        yield finding(name, OK, "%s, %.0f GB" % (properties.name, properties.total_memory / GB))
        yield precisions(torch, index)
        for dtype in TOLERANCES:
            if dtype == "bfloat16" and torch.cuda.get_device_capability(index)[0] < 8:
                continue  # emulated, so too slow to use
            yield check_product(torch, "cuda:%d" % index, name, dtype)


def count(leased: int, names: List[str]) -> Finding:
    """Report whether PyTorch sees all leased GPUs; `names` are the GPUs that it sees."""
    seen = len(names)
    what = "PyTorch sees %d GPU%s" % (seen, "s" * (seen != 1))
    if seen == leased:
        return finding("CUDA", OK, what)
    what += ", and this run was given %d" % leased
    if any(" MIG " in name for name in names):
        return finding("CUDA", WARN, what, "a process can use only one MIG slice: request one GPU")
    return finding("CUDA", FAIL, what, "check the output of `nvidia-smi -L` on the host")


# --- several GPUs


def all_reduce(backend: str, world: int) -> Finding:
    """Add up a tensor over all GPUs, each in a process of its own, as DDP does."""
    topic = "between GPUs"
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, os.path.abspath(__file__), "--backend", backend, "--world", str(world)]
        argv += ["--store", os.path.join(folder, "store")]
        env = {"NCCL_DEBUG": "WARN", **os.environ}
        started = time.monotonic()
        logs = [os.path.join(folder, "log%d" % rank) for rank in range(world)]
        ranks = [start([*argv, "--rank", str(rank)], env, log) for rank, log in enumerate(logs)]
        failed = wait_for(ranks, started + ALL_REDUCE_TIMEOUT)
        if failed is None:
            took = time.monotonic() - started
            return finding(topic, OK, "%d processes added up over %s in %.1f s" % (world, backend, took))
        reason = last_error(read(logs[failed])) or "no answer in %.0f s" % ALL_REDUCE_TIMEOUT
    mend = "try -e NCCL_P2P_DISABLE=1; if that helps, the host's IOMMU or virtualization prevents direct transfers between GPUs"
    return finding(topic, FAIL, "%s: %s" % (backend, reason), mend)


def start(argv: List[str], env: Dict[str, str], log: str) -> Process:
    with open(log, "wb") as file:
        return subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)


def wait_for(ranks: List[Process], deadline: float) -> Optional[int]:
    """Return None when all ranks have succeeded, else the first rank that failed or did not finish in time.

    A rank that waits for a failed rank never ends by itself.
    """
    try:
        while True:
            codes = [rank.poll() for rank in ranks]
            if not any(codes) and None not in codes:
                return None
            failed = next((rank for rank, code in enumerate(codes) if code), None)
            if failed is not None:
                return failed
            if time.monotonic() > deadline:
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
    """Run one process of `all_reduce`."""
    import torch
    import torch.distributed as dist

    device = "cpu"
    if backend == "nccl":
        torch.cuda.set_device(rank)
        device = "cuda:%d" % rank
    timeout = datetime.timedelta(seconds=ALL_REDUCE_TIMEOUT)
    dist.init_process_group(backend, init_method="file://" + store, rank=rank, world_size=world, timeout=timeout)
    numbers = torch.full((1 << 20,), float(rank + 1), device=device)
    dist.all_reduce(numbers)
    expected = world * (world + 1) / 2
    if not bool((numbers == expected).all()):
        raise SystemExit("the sum is %s instead of %s" % (float(numbers[0]), expected))
    dist.destroy_process_group()


# --- the rest


def shared_memory(*, container: bool, place: str = "/dev/shm") -> Finding:
    try:
        disk = os.statvfs(place)
    except OSError as error:
        return finding(
            "shared memory", WARN, str(error), "DataLoader workers need it; set num_workers=0 to do without them"
        )
    size = disk.f_blocks * disk.f_frsize
    if size >= MIN_SHM:
        return finding("shared memory", OK, "%.1f GB for DataLoader workers" % (size / GB))
    mend = "--shm-size 8GB" if container else "sudo mount -o remount,size=8G /dev/shm on the host"
    return finding("shared memory", WARN, "%.2f GB is little for DataLoader workers" % (size / GB), mend)


def software(torch: Any) -> Finding:
    cuda, cudnn = torch.version.cuda, torch.backends.cudnn.version()
    built = "CUDA %s, cuDNN %s" % (cuda, cudnn) if cuda else "built for the CPU"
    return finding("software", OK, "PyTorch %s, %s, Python %s" % (torch.__version__, built, platform.python_version()))


def first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[0][:300]


def last_error(output: str) -> str:
    """Return the most useful line: NCCL's own warning, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    nccl = [line for line in lines if "NCCL WARN" in line]
    return (nccl or lines or [""])[-1][:300]


def check(leased: int, *, container: bool) -> Iterator[Finding]:
    """Run all tests on GPUs. `leased`: the number of GPUs of this run."""
    # Compare in full precision: some images enable TF32 globally.
    os.environ.pop("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", None)
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    try:
        import torch
    except ImportError as error:
        mend = "use an image with PyTorch, or set `python` in the host's profile to a Python with PyTorch"
        yield finding("software", FAIL, "PyTorch cannot be imported: %s" % first_line(str(error)), mend)
        return
    yield software(torch)
    if not torch.cuda.is_available():
        yield why_no_cuda(torch.version.cuda, container=container)
    else:
        yield count(leased, [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())])
        yield from each_gpu(torch)
        if torch.cuda.device_count() > 1:
            yield all_reduce("nccl", torch.cuda.device_count())
    yield shared_memory(container=container)


def check_on_cpu() -> Iterator[Finding]:
    """Run the same tests on the CPU, to test them on a machine without a GPU."""
    import torch

    yield software(torch)
    for dtype in TOLERANCES:
        yield check_product(torch, "cpu", "CPU", dtype)
    yield all_reduce("gloo", 2)
    yield shared_memory(container=False)


def print_findings(findings: Iterator[Finding], out: Callable[[str], Any]) -> int:
    """Print the findings and return the exit code."""
    exit_code = 0
    for each in findings:
        out(json.dumps(each))
        exit_code = max(exit_code, int(each["status"] == FAIL))
    return exit_code


def main(words: List[str]) -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--device", default="cuda")
    options.add_argument("--backend")
    options.add_argument("--store")
    options.add_argument("--rank", type=int)
    options.add_argument("--world", type=int)
    arguments = options.parse_args(words)
    import_only_installed()
    if arguments.rank is not None:
        add_up(arguments.backend, arguments.store, arguments.rank, arguments.world)
        return 0

    def out(line: str) -> None:
        print(line, flush=True)

    if arguments.device == "cpu":
        return print_findings(check_on_cpu(), out)
    service = read_settings()
    return print_findings(check(service["gpus"], container=service["container"]), out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
