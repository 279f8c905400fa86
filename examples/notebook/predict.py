"""Load the best checkpoint on the CPU and measure it: `python predict.py [CHECKPOINT] [--json]`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from data.spirals import draw_spirals
from models.mlp import SpiralsClassifier


@torch.inference_mode()
def accuracy_on_new_points(checkpoint: Path, count: int) -> float:
    """Share of right answers in [0, 1] on points that training never saw."""
    model = SpiralsClassifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    points, labels = draw_spirals(count, seed=3)
    return (model(points).argmax(dim=1) == labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=Path("checkpoints/best.ckpt"))
    parser.add_argument("--points", type=int, default=2000, help="how many new points are drawn")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    accuracy = accuracy_on_new_points(args.checkpoint, args.points)
    if args.json:
        print(json.dumps({"checkpoint": str(args.checkpoint), "acc": accuracy, "points": args.points}))
    else:
        print(f"accuracy {accuracy:.2%} on {args.points} new points ({args.checkpoint})")


if __name__ == "__main__":
    main()
