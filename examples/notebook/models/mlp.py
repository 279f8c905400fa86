"""A small fully connected classifier of points."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy


class SpiralsClassifier(LightningModule):
    """Classifies points of shape (batch, 2).

    Logs `train_loss` and `val_loss` (mean cross-entropy, in nats) and `val_acc` (share of right answers).

    Args:
        lr: learning rate.
        width: units of each hidden layer.
    """

    def __init__(self, lr: float = 5e-3, width: int = 64) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )
        self.val_acc = MulticlassAccuracy(2, average="micro")

    def forward(self, points: Tensor) -> Tensor:
        """Points (batch, 2) -> logits (batch, 2)."""
        return self.net(points)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        points, labels = batch
        loss = nn.functional.cross_entropy(self(points), labels)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        points, labels = batch
        logits = self(points)
        self.val_acc(logits, labels)
        self.log("val_loss", nn.functional.cross_entropy(logits, labels), prog_bar=True, sync_dist=True)
        self.log("val_acc", self.val_acc, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
