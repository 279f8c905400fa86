"""The handwritten digits that come with scikit-learn: 1,797 real images, nothing to download."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningDataModule
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset

Batches = DataLoader[tuple[torch.Tensor, ...]]


class DigitsDataModule(LightningDataModule):
    """Images (batch, 1, 8, 8) as float32 in [0, 1], labels (batch,) as int64 in 0..9.

    The split is stratified and hangs on `split_seed` alone, so that a checkpoint meets the same validation
    images again whatever seed it was trained with.

    Args:
        batch_size: images a step, for each process.
        val_fraction: share of all images that is held out, in (0, 1).
        split_seed: seed of the split into training and validation images.
    """

    def __init__(self, batch_size: int = 64, val_fraction: float = 0.2, split_seed: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        pixels, labels = load_digits(return_X_y=True)  # (1797, 64) in 0..16, (1797,)
        images = torch.as_tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
        targets = torch.as_tensor(labels, dtype=torch.int64)
        train, val = train_test_split(
            range(len(targets)),
            test_size=self.hparams.val_fraction,
            random_state=self.hparams.split_seed,
            stratify=labels,
        )
        self.train_set = TensorDataset(images[train], targets[train])
        self.val_set = TensorDataset(images[val], targets[val])

    def train_dataloader(self) -> Batches:
        return DataLoader(self.train_set, batch_size=self.hparams.batch_size, shuffle=True)

    def val_dataloader(self) -> Batches:
        return DataLoader(self.val_set, batch_size=256)
