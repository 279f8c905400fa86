"""Load the best checkpoint on the CPU and measure it: `python predict.py [CHECKPOINT] [--json]`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from data.cifar10 import CIFAR10DataModule
from models.resnet import CIFAR10Classifier


@torch.inference_mode()
def validation_accuracy(checkpoint: Path) -> tuple[float, int]:
    """Share of right answers in [0, 1], and how many validation images there were: made-up ones if it learnt from such."""
    model = CIFAR10Classifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    data = CIFAR10DataModule.load_from_checkpoint(checkpoint, map_location="cpu", workers=0)
    data.prepare_data()
    data.setup("validate")
    hits = [model(images).argmax(dim=1) == labels for images, labels in data.val_dataloader()]
    return torch.cat(hits).float().mean().item(), len(data.val_set)


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
