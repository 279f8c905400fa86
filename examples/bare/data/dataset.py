"""What the model learns from: here a made-up straight line. Yours may be downloaded to data_root()."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

Batches = DataLoader[tuple[Tensor, ...]]


def data_root() -> Path:
    """Where downloads last: the host's folder for this project's data or, by hand, the user's cache."""
    return Path(os.environ.get("GPURUN_DATA") or Path.home() / ".cache" / "bare")


class Data(LightningDataModule):
    """Inputs (batch, 4) and targets (batch, 1) as float32.

    Args:
        batch_size: samples a step, for each process.
    """

    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.save_hyperparameters()

    def prepare_data(self) -> None:
        """Download to `data_root()`; Lightning calls this in one process of each machine."""

    def setup(self, stage: str) -> None:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(1200, 4, generator=generator)
        targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]]) + 0.1 * torch.randn(1200, 1, generator=generator)
        self.train_set = TensorDataset(inputs[:1000], targets[:1000])
        self.val_set = TensorDataset(inputs[1000:], targets[1000:])

    def train_dataloader(self) -> Batches:
        return DataLoader(self.train_set, batch_size=self.hparams.batch_size, shuffle=True)

    def val_dataloader(self) -> Batches:
        return DataLoader(self.val_set, batch_size=self.hparams.batch_size)
