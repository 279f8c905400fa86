"""Load the best checkpoint on the CPU and inspect parts: `python predict.py [CHECKPOINT] [--json]`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from data.surfaces import CLASSES, draw_surfaces
from models.inspector import Inspector
from torch import Tensor


@torch.inference_mode()
def inspect(checkpoint: Path, parts: int) -> Tensor:
    """The confusion matrix (true class, found class) over `parts` new parts, as counts."""
    model = Inspector.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    images, labels = draw_surfaces(parts, seed=3)
    found = torch.cat([model(some).argmax(dim=1) for some in images.split(500)])
    return torch.bincount(labels * len(CLASSES) + found, minlength=len(CLASSES) ** 2).view(len(CLASSES), -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=Path("checkpoints/best.ckpt"))
    parser.add_argument("--parts", type=int, default=4000, help="how many new parts are drawn")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    counts = inspect(args.checkpoint, args.parts)
    bad, thrown_out = counts[1:].sum().item(), counts[:, 1:].sum().item()
    right = counts[1:, 1:].sum().item()
    figures = {"parts": args.parts, "bad": bad, "precision": right / max(thrown_out, 1), "recall": right / max(bad, 1)}
    if args.json:
        print(json.dumps({"checkpoint": str(args.checkpoint), **figures, "confusion": counts.tolist()}))
        return
    print(f"{bad} of {args.parts} parts are bad; {figures['recall']:.1%} of these are thrown out")
    print(f"{figures['precision']:.1%} of the {thrown_out} that are thrown out are bad")
    for name, row in zip(CLASSES, counts.tolist(), strict=True):
        print(f"{name:8} taken for  " + "  ".join(f"{other} {n}" for other, n in zip(CLASSES, row, strict=True)))


if __name__ == "__main__":
    main()
