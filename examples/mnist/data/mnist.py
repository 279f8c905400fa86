"""MNIST: 60,000 training and 10,000 validation images of handwritten digits, 28x28 pixels."""

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
    return Path(os.environ.get("GPURUN_DATA") or Path.home() / ".cache" / "mnist")


def fake_images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Stand-ins that need no download: digit k is a bright bar from row 2k + 4 on, under noise.

    Returns images (count, 28, 28) as uint8 and labels (count,) as int64.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (count,), generator=generator)
    images = torch.randint(100, (count, 28, 28), generator=generator, dtype=torch.uint8)
    rows = torch.arange(28)
    first = 2 * labels[:, None] + 4
    bars = (rows >= first) & (rows < first + 3)  # (count, 28)
    return images + 150 * bars[:, :, None].to(torch.uint8), labels


class MNISTDataModule(LightningDataModule):
    """Images (batch, 1, 28, 28) as float32 in [0, 1], labels (batch,) as int64 in 0..9.

    Args:
        batch_size: images a step, for each process.
        workers: processes that load batches, for each process that trains.
        fake: made-up images instead of the real ones, for a try without network.
    """

    def __init__(self, batch_size: int = 128, workers: int = 2, fake: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()

    def prepare_data(self) -> None:
        """Download what is missing; Lightning calls this in one process of each machine."""
        if not self.hparams.fake:
            from torchvision.datasets import MNIST

            MNIST(data_root(), train=True, download=True)
            MNIST(data_root(), train=False, download=True)

    def setup(self, stage: str) -> None:
        self.train_set = self._load(train=True)
        self.val_set = self._load(train=False)

    def _load(self, *, train: bool) -> TensorDataset:
        if self.hparams.fake:
            images, labels = fake_images(4096 if train else 512, seed=int(train))
        else:
            from torchvision.datasets import MNIST

            dataset = MNIST(data_root(), train=train)
            images, labels = dataset.data, dataset.targets
        return TensorDataset(images.unsqueeze(1).float() / 255, labels)

    def train_dataloader(self) -> Batches:
        return self._batches(self.train_set, shuffle=True)

    def val_dataloader(self) -> Batches:
        return self._batches(self.val_set, shuffle=False)

    def _batches(self, images: TensorDataset, *, shuffle: bool) -> Batches:
        return DataLoader(
            images,
            batch_size=self.hparams.batch_size,
            shuffle=shuffle,
            num_workers=self.hparams.workers,
            persistent_workers=self.hparams.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
