"""Train a small network with dropout, every algorithm deterministic, and print a digest of the final weights."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import time

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Dataset

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else products on CUDA are not deterministic

parser = argparse.ArgumentParser()
parser.add_argument("--accelerator", default="auto")
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--workers", type=int, default=0)
parser.add_argument("--pace", type=float, default=0.0, help="seconds that a step takes longer")
args = parser.parse_args()


class Samples(Dataset):
    """320 samples; each draws from the random states of the process that loads it."""

    def __len__(self) -> int:
        return 320

    def __getitem__(self, index: int) -> torch.Tensor:
        made = torch.Generator().manual_seed(index)
        noise = 0.01 * torch.randn(16) + 0.01 * random.random() if args.workers == 0 else torch.zeros(16)
        return torch.randn(16, generator=made) + noise


class Model(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(64, 1)
        )

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if batch_idx == 0:
            print(f"epoch {self.current_epoch} begins", flush=True)
        time.sleep(args.pace)
        jitter = torch.rand(len(batch), 1, device=self.device)  # CUDA's own random numbers
        loss = (self.net(batch) - jitter).pow(2).mean()
        self.log("loss", loss.detach())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


pl.seed_everything(7, workers=True)
torch.set_num_threads(1)
trainer = pl.Trainer(
    max_epochs=args.epochs,
    accelerator=args.accelerator,
    devices=1,
    deterministic=True,
    logger=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
model = Model()
trainer.fit(model, DataLoader(Samples(), batch_size=8, shuffle=True, num_workers=args.workers))
if trainer.global_step == args.epochs * 40:  # else it was stopped
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    print(json.dumps({"weights": digest.hexdigest(), "device": str(trainer.strategy.root_device)}), flush=True)
