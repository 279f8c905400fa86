"""The steps: each shows one thing on the GPU, and returns its figures. A dry run leaves out what CUDA alone can show."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.gpu.laptop import LOOK_EVERY, Failed, Laptop

Figures = dict[str, Any]
NEEDED = ("connection", "python", "rsync there", "GPUs")  # topics of `host check` that runs depend on
HELD = 2 << 30  # bytes of GPU memory that a process of the tests takes
FREED_WITHIN = 256  # MiB by which the memory in use may differ before and after


@dataclass(frozen=True)
class Step:
    """`limit` in seconds. A step that needs CUDA itself is left out of a dry run."""

    name: str
    do: Callable[[Laptop], Figures]
    limit: float
    needs_gpu: bool = False


def facts(laptop: Laptop) -> Figures:
    """`host check`: this machine as gpurun sees it."""
    report = laptop.json("host", "check", "demo", ok=False)
    found = {each["topic"]: each["found"] for each in report["findings"]}
    bad = [each["topic"] for each in report["findings"] if each["status"] == "fail" and each["topic"] in NEEDED]
    if bad or not found.keys() >= set(NEEDED):
        raise Failed(
            f"host check finds fault with {', '.join(bad)}" if bad else f"host check looked at {[*found]} alone"
        )
    return {topic: found[topic] for topic in ("python", "GPUs", "driver") if topic in found}


def gpu_check(laptop: Laptop) -> Figures:
    """`host check --gpu`: products in each precision against the CPU's, and the memory."""
    report = laptop.json("host", "check", "demo", "--gpu")
    return {each["topic"]: each["found"] for each in report["findings"]}


def examples(laptop: Laptop) -> Figures:
    """digits and mnist train in each precision that the device has."""
    precisions = ("32-true", "16-mixed", "bf16-mixed") if laptop.gpus else ("bf16-mixed",)
    figures: Figures = {}
    for example, *more in (("digits",), ("mnist", "--fake-data", "--workers", "0")):
        laptop.use_example(example)
        for precision in precisions:
            options = ("--epochs", "2" if laptop.gpus else "1", "--precision", precision, *more)
            run = laptop.trained("train.py", *options, "--accelerator", laptop.accelerator)
            figures[f"{example} {precision}"] = best_accuracy(laptop, run)
    return figures


def best_accuracy(laptop: Laptop, run: str) -> str:
    found = re.search(r"best val_acc ([\d.]+)", laptop.logs(run))
    if found is None:
        raise Failed(f"{run} printed no accuracy")
    return f"val_acc {found[1]}"


def fetch_and_predict(laptop: Laptop) -> Figures:
    """The best checkpoint, fetched and measured on the CPU, is as good as the training said."""
    laptop.use_example("digits")
    run = laptop.trained("train.py", "--epochs", "8" if laptop.gpus else "2", "--accelerator", laptop.accelerator)
    laptop.gpurun("fetch", "--best", run, "-o", "best.ckpt")
    measured = laptop.printed(laptop.run([sys.executable, "predict.py", "best.ckpt", "--json"]))
    said = float(best_accuracy(laptop, run).split()[1])
    if abs(measured["val_acc"] - said) > 0.01:
        raise Failed(f"the training ended with val_acc {said}, and predict.py measured {measured['val_acc']:.4f}")
    return {"val_acc in training": said, "val_acc of predict.py on the CPU": round(measured["val_acc"], 4)}


def exact_resume(laptop: Laptop) -> Figures:
    """A training that was stopped in the middle of an epoch ends with the same bits as one that was not."""
    laptop.use_scripts()
    figures: Figures = {}
    for workers in ("0", "2") if laptop.gpus else ("2",):
        args = ("--accelerator", laptop.accelerator, "--workers", workers)
        whole = laptop.printed(laptop.logs(laptop.trained("exact.py", *args)))
        run = laptop.submit("exact.py", *args, "--pace", "0.1")
        laptop.until_logged(run, "epoch 1 begins")
        laptop.gpurun("stop", run)
        stopped = laptop.status(run).get("stopped") or {}
        if not 40 < stopped.get("step", 0) < 80:
            raise Failed(f"{run} was to stop in the middle of its second epoch: {stopped}")
        laptop.gpurun("resume", run)
        laptop.until(run, "succeeded")
        resumed = laptop.printed(laptop.logs(run))
        if resumed["weights"] != whole["weights"]:
            raise Failed(f"{workers} workers, stopped at step {stopped['step']}: the final weights differ")
        figures[f"{workers} workers"] = (
            f"stopped at step {stopped['step']} of 120, same bits on {whole['device']}: {whole['weights'][:12]}"
        )
    return figures


def stranger(laptop: Laptop) -> Figures:
    """A GPU that a process of somebody else uses is not taken, and who uses it is said."""
    laptop.use_scripts()
    other = subprocess.Popen(
        [sys.executable, "hold.py", str(HELD)], cwd=laptop.project, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        other.stdout.readline()
        run = laptop.submit("rate.py", "--steps", "200", "--accelerator", "gpu")
        waiting = laptop.until(run, "queued")
        while not waiting.get("waiting"):
            time.sleep(min(LOOK_EVERY, laptop.left))
            waiting = laptop.until(run, "queued")
        if str(other.pid) not in waiting["waiting"] and "python" not in waiting["waiting"]:
            raise Failed(f"nobody says that process {other.pid} has the GPU: {waiting['waiting']}")
    finally:
        other.kill()
        other.wait()
    laptop.until(run, "succeeded")
    return {"while it waited": waiting["waiting"]}


def killed_job(laptop: Laptop) -> Figures:
    """kill -9 of a job: its GPU memory is free again, and the next job gets the GPU."""
    laptop.use_scripts()
    before = memory_in_use() if laptop.gpus else 0
    run = laptop.submit("hold.py", str(HELD if laptop.gpus else 1 << 20))
    laptop.until_logged(run, "holding as")
    while_held = memory_in_use() if laptop.gpus else 0
    found = re.search(r"holding as (\d+)", laptop.logs(run))
    assert found is not None
    os.kill(int(found[1]), signal.SIGKILL)
    record = laptop.until(run, "failed")
    figures = {"it ended as": f"{record['state']} ({record.get('reason')})"}
    if laptop.gpus:
        after = memory_in_use()
        while after > before + FREED_WITHIN:
            time.sleep(min(LOOK_EVERY, laptop.left))
            after = memory_in_use()
        figures["GPU memory"] = f"{before} MiB before, {while_held} MiB while it ran, {after} MiB after"
    laptop.trained("rate.py", "--steps", "200", "--accelerator", laptop.accelerator)
    return figures


def memory_in_use() -> int:
    """MiB of GPU 0, by its driver."""
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout)


def plugin_cost(laptop: Laptop) -> Figures:
    """What the plugin adds to a step that does next to nothing: the same script through gpurun and by hand, in turns."""
    steps = "3000" if laptop.gpus else "600"
    return compared(laptop, ("rate.py", "--steps", steps), turns=3 if laptop.gpus else 1)


def training_rate(laptop: Laptop) -> Figures:
    """The rate of a step that does some work, through gpurun and by hand, in turns."""
    work = (
        ("--width", "4096", "--batch", "512", "--steps", "400") if laptop.gpus else ("--width", "64", "--steps", "300")
    )
    return compared(laptop, ("rate.py", *work), turns=3 if laptop.gpus else 1)


def compared(laptop: Laptop, command: tuple[str, ...], *, turns: int) -> Figures:
    laptop.use_scripts()
    command = (*command, "--accelerator", laptop.accelerator)
    through, by_hand = [], []
    for _ in range(turns):
        by_hand.append(laptop.by_hand(*command))
        through.append(laptop.printed(laptop.logs(laptop.trained(*command))))
    rate, plain = (median(each["steps_per_s"] for each in found) for found in (through, by_hand))
    return {
        "through gpurun": f"{rate:.1f} steps/s",
        "by hand": f"{plain:.1f} steps/s",
        "ratio": round(rate / plain, 4),
        "added to a step": f"{1e3 / rate - 1e3 / plain:.4f} ms",
        "turns": turns,
    }


def network_speed(laptop: Laptop) -> Figures:
    """Steps of the CIFAR-10 network on made-up images: precision and layout."""
    laptop.use_example("cifar10")
    (laptop.project / "speed.py").write_text((Path(__file__).parent / "scripts" / "speed.py").read_text())
    small = () if laptop.gpus else ("--device", "cpu", "--batch", "16", "--width", "4", "--seconds", "0.5")
    figures = laptop.printed(laptop.logs(laptop.trained("speed.py", *small)))
    busy = {name: each["gpu_percent"] for name, each in figures.items()}
    return {
        name: f"{each['images_per_s']:.0f} images/s" + (f", GPU {busy[name]:.0f}% busy" if busy[name] else "")
        for name, each in figures.items()
    }


def cifar10(laptop: Laptop) -> Figures:
    """The example itself, on made-up images."""
    laptop.use_example("cifar10")
    small = ("--epochs", "2") if laptop.gpus else ("--epochs", "1", "--width", "4", "--batch-size", "512")
    options = (*small, "--workers", "0", "--fake-data", "--accelerator", laptop.accelerator)
    began = time.monotonic()
    run = laptop.trained("train.py", *options)
    return {"made-up images": best_accuracy(laptop, run), "seconds": round(time.monotonic() - began, 1)}


def out_of_memory(laptop: Laptop) -> Figures:
    """A job that takes more memory than the GPU has: `status` says so, with the numbers."""
    laptop.use_scripts()
    run = laptop.submit("oom.py")
    laptop.until(run, "failed")
    shown = laptop.gpurun("status", run, ok=False)
    found = re.search(r"[^\n]*CUDA out of memory[^\n]*", shown)
    if found is None or not re.search(r"\d\s*[GM]iB", shown):
        raise Failed("status does not say that the GPU's memory was full, or not by how much")
    return {"status": found[0].strip()}


STEPS = (
    Step("host check", facts, 40),
    Step("host check --gpu", gpu_check, 60, needs_gpu=True),
    Step("examples in each precision", examples, 120),
    Step("fetch --best, predict on the CPU", fetch_and_predict, 60),
    Step("exact resume", exact_resume, 120),
    Step("a stranger's process on the GPU", stranger, 60, needs_gpu=True),
    Step("kill -9 of a job", killed_job, 60),
    Step("out of GPU memory", out_of_memory, 40, needs_gpu=True),
    Step("cost of the plugin", plugin_cost, 90),
    Step("training rate", training_rate, 90),
    Step("CIFAR-10 network", network_speed, 60),
    Step("CIFAR-10 example", cifar10, 60),
)


def driver() -> str:
    """The name and driver of GPU 0; empty where there is none."""
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    return ""
