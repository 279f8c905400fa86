"""Load the best checkpoint on the CPU and measure it: `python predict.py [CHECKPOINT] [--json]`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from data.digits import DigitsDataModule
from models.cnn import DigitsClassifier


@torch.inference_mode()
def validation_accuracy(checkpoint: Path) -> tuple[float, int]:
    """Share of right answers in [0, 1], and how many validation images there were."""
    model = DigitsClassifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    data = DigitsDataModule.load_from_checkpoint(checkpoint, map_location="cpu")
    data.setup("validate")
    images, labels = data.val_set.tensors
    hits = model(images).argmax(dim=1) == labels
    return hits.float().mean().item(), len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=Path("checkpoints/best.ckpt"))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    accuracy, images = validation_accuracy(args.checkpoint)
    if args.json:
        print(json.dumps({"checkpoint": str(args.checkpoint), "val_acc": accuracy, "images": images}))
    else:
        print(f"validation accuracy {accuracy:.2%} on {images} images ({args.checkpoint})")


if __name__ == "__main__":
    main()
