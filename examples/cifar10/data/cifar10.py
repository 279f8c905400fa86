"""CIFAR-10: 50,000 training and 10,000 validation images of 32x32 pixels, ten kinds of things."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Batch = tuple[Tensor, Tensor]


def data_root() -> Path:
    """Where downloads last: the host's folder for this project's data or, by hand, the user's cache."""
    return Path(os.environ.get("GPURUN_DATA") or Path.home() / ".cache" / "cifar10")


def fake_images(count: int, seed: int) -> Batch:
    """Stand-ins that need no download: class k is a tint of its own, under noise.

    Returns images (count, 3, 32, 32) as uint8 and labels (count,) as int64.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (count,), generator=generator)
    tints = torch.randint(60, 196, (10, 3, 1, 1), generator=torch.Generator().manual_seed(0))
    noise = torch.randint(-60, 60, (count, 3, 32, 32), generator=generator)
    return (tints[labels] + noise).clamp(0, 255).to(torch.uint8), labels


class Images(Dataset[Batch]):
    """Images and labels in memory that are read a batch at a time: `images[[3, 1, 2]]` in one step, not three."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> Batch:
        chosen = torch.as_tensor(indices)
        return self.images[chosen], self.labels[chosen]


def as_it_is(batch: Batch) -> Batch:
    return batch


class CIFAR10DataModule(LightningDataModule):
    """Images (batch, 3, 32, 32) as uint8 in 0..255, labels (batch,) as int64 in 0..9; the model makes them floats.

    Args:
        batch_size: images a step, for each process.
        workers: processes that load batches, for each process that trains.
        fake: made-up images instead of the real ones, for a try without network.
    """

    def __init__(self, batch_size: int = 256, workers: int = 2, fake: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()

    def prepare_data(self) -> None:
        """Download what is missing; Lightning calls this in one process of each machine."""
        if not self.hparams.fake:
            from torchvision.datasets import CIFAR10

            CIFAR10(data_root(), train=True, download=True)
            CIFAR10(data_root(), train=False, download=True)

    def setup(self, stage: str) -> None:
        self.train_set = self._load(train=True)
        self.val_set = self._load(train=False)

    def _load(self, *, train: bool) -> Images:
        if self.hparams.fake:
            return Images(*fake_images(2048 if train else 512, seed=int(train)))
        from torchvision.datasets import CIFAR10

        dataset = CIFAR10(data_root(), train=train)
        return Images(torch.as_tensor(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.as_tensor(dataset.targets))

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._batches(self.train_set, train=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._batches(self.val_set, train=False)

    def _batches(self, images: Images, *, train: bool) -> DataLoader[Batch]:
        return DataLoader(
            images,
            batch_size=self.hparams.batch_size,
            shuffle=train,
            drop_last=train,
            collate_fn=as_it_is,
            num_workers=self.hparams.workers,
            persistent_workers=self.hparams.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
