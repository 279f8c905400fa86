"""Load the best checkpoint on the CPU and measure it: `python predict.py [CHECKPOINT]`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from data.dataset import Data
from models.model import Model


@torch.inference_mode()
def validation_loss(checkpoint: Path) -> float:
    """Mean squared error on the validation data."""
    model = Model.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    data = Data.load_from_checkpoint(checkpoint, map_location="cpu")
    data.setup("validate")
    inputs, targets = data.val_set.tensors
    return torch.nn.functional.mse_loss(model(inputs), targets).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=Path("checkpoints/best.ckpt"))
    args = parser.parse_args()
    print(f"validation loss {validation_loss(args.checkpoint):.4f} ({args.checkpoint})")


if __name__ == "__main__":
    main()
