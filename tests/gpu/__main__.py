"""Run the steps: `python -m tests.gpu [--dry] [STEP...]`, where a STEP is a part of a step's name.

Writes `gpu.md`, `gpu.json` and `gpu.log` into $OUT, or into build/. Exits with 1 when a step has failed, and with 3 where
there is no GPU (`--dry`: on the CPU, without what CUDA alone can show).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from pathlib import Path

from tests.gpu.laptop import REPOSITORY, Failed, Laptop, new_laptop
from tests.gpu.report import FAILED, LEFT_OUT, PASSED, Report, Row
from tests.gpu.steps import STEPS, Step, driver

ALL_WITHIN = 480.0  # seconds
SLACK = 4.0  # a dry run shares a slow CPU: each step may take so many times longer
EXIT_NO_GPU = 3


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--dry", action="store_true", help="on the CPU")
    parser.add_argument("step", nargs="*", help="run only the steps that have one of these in their names")
    args = parser.parse_args()
    gpu = "" if args.dry else driver()
    if not gpu and not args.dry:
        print("nvidia-smi shows no GPU; `--dry` runs the steps on the CPU", file=sys.stderr)
        return EXIT_NO_GPU
    chosen = [step for step in STEPS if not args.step or any(word in step.name for word in args.step)]
    out = Path(os.environ.get("OUT") or REPOSITORY / "build")
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    until = began + ALL_WITHIN * (SLACK if args.dry else 1)
    with (out / "gpu.log").open("w") as log, new_laptop(log, gpus=0 if args.dry else 1) as laptop:
        rows = tuple(run(step, laptop, until, dry=args.dry) for step in chosen)
    report = Report(gpu, rows, time.monotonic() - began)
    report.write(out)
    print(f"\n{report.table()}\n\n{out}/gpu.md, gpu.json and gpu.log were written", flush=True)
    return 0 if report.ok else 1


def run(step: Step, laptop: Laptop, until: float, *, dry: bool) -> Row:
    """Do one step; what goes wrong in it is its row, and the others still run."""
    if dry and step.needs_gpu:
        return Row(step.name, LEFT_OUT, why="it needs a GPU")
    began = time.monotonic()
    limit = step.limit * (SLACK if dry else 1)
    laptop.deadline = min(began + limit, until)
    laptop.log.write(f"\n== {step.name}\n")
    print(f"{step.name} ...", flush=True)
    try:
        figures = step.do(laptop)
        row = Row(step.name, PASSED, time.monotonic() - began, figures)
    except Exception as error:  # noqa: BLE001 - a defect of a step must not keep the others from running
        traceback.print_exc(file=laptop.log)
        why = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
        row = Row(step.name, FAILED, time.monotonic() - began, why=why)
        print(f"  failed: {why}", flush=True)
    try:
        laptop.stop_all()
    except Exception:  # noqa: BLE001
        traceback.print_exc(file=laptop.log)
    return row


if __name__ == "__main__":
    sys.exit(main())
