"""Points on two spirals that turn around each other: nothing to download, and nothing that a line could part."""

from __future__ import annotations

import math

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

Batches = DataLoader[tuple[Tensor, ...]]


def draw_spirals(count: int, seed: int, noise: float = 0.04) -> tuple[Tensor, Tensor]:
    """Points (count, 2) as float32, about in [-1, 1], and labels (count,) as int64, 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    along = torch.rand(count, generator=generator).sqrt()  # as many points outside, where the spiral is longer
    angle = 1.5 * 2 * math.pi * along + math.pi * labels
    points = along[:, None] * torch.stack((angle.cos(), angle.sin()), dim=1)
    return points + noise * torch.randn(count, 2, generator=generator), labels


class SpiralsDataModule(LightningDataModule):
    """Points (batch, 2) as float32, labels (batch,) as int64.

    Args:
        batch_size: points a step, for each process.
    """

    def __init__(self, batch_size: int = 128) -> None:
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        self.train_set = TensorDataset(*draw_spirals(2000, seed=1))
        self.val_set = TensorDataset(*draw_spirals(1000, seed=2))

    def train_dataloader(self) -> Batches:
        return DataLoader(self.train_set, batch_size=self.hparams.batch_size, shuffle=True)

    def val_dataloader(self) -> Batches:
        return DataLoader(self.val_set, batch_size=1000)
