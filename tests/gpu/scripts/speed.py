"""Time training steps of the CIFAR-10 network on made-up images that lie on the device; print one JSON object.

It runs in the project `cifar10`. Each figure is images a second over `--seconds`, behind a warm-up.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import threading
import time
from contextlib import suppress

import torch
from models.resnet import CIFAR10Classifier, augmented

WARM_UP = 5  # steps
LOOK_EVERY = 0.25  # seconds

parser = argparse.ArgumentParser()
parser.add_argument("--device", default="cuda")
parser.add_argument("--batch", type=int, default=1024)
parser.add_argument("--width", type=int, default=64)
parser.add_argument("--seconds", type=float, default=4.0)
args = parser.parse_args()


def utilisation(found: list[int], over: threading.Event) -> None:
    """Ask the driver how busy the GPU is until `over`; percent."""
    asked = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]
    while not over.wait(LOOK_EVERY):
        with suppress(OSError, ValueError, subprocess.SubprocessError):
            found.append(int(subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout))


def images_a_second(*, bf16: bool, layout: torch.memory_format) -> tuple[float, float | None]:
    """Images a second, and how busy the GPU was meanwhile (percent; None without a driver)."""
    model = CIFAR10Classifier(width=args.width).to(args.device)
    model.net.to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images = torch.randint(256, (args.batch, 3, 32, 32), dtype=torch.uint8, device=args.device)
    labels = torch.randint(10, (args.batch,), device=args.device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=bf16):
            scaled = (augmented(images) - model.mean) / model.std
            loss = torch.nn.functional.cross_entropy(model.net(scaled.contiguous(memory_format=layout)), labels)
        loss.backward()
        optimizer.step()

    def finish() -> None:
        if args.device == "cuda":
            torch.cuda.synchronize()

    for _ in range(WARM_UP):
        step()
    finish()
    busy: list[int] = []
    over = threading.Event()
    watcher = threading.Thread(target=utilisation, args=(busy, over), daemon=True)
    if args.device == "cuda":
        watcher.start()
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < args.seconds:
        step()
        steps += 1
        if steps % 10 == 0:
            finish()
    finish()
    seconds = time.perf_counter() - began
    over.set()
    return steps * args.batch / seconds, sum(busy) / len(busy) if busy else None


if args.device == "cuda":
    torch.backends.cudnn.benchmark = True
figures = {}
for name, bf16, layout in (
    ("fp32", False, torch.contiguous_format),
    ("bf16", True, torch.contiguous_format),
    ("bf16, channels last", True, torch.channels_last),
):
    rate, busy = images_a_second(bf16=bf16, layout=layout)
    figures[name] = {"images_per_s": rate, "gpu_percent": busy}
print(json.dumps(figures), flush=True)
