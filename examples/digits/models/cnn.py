"""A small convolutional classifier."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy


def block(channels_in: int, channels_out: int) -> nn.Sequential:
    """3x3 convolution, normalised: (batch, channels_in, h, w) -> (batch, channels_out, h, w)."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


class DigitsClassifier(LightningModule):
    """Classifies images of shape (batch, 1, 8, 8) with values in [0, 1].

    Logs `train_loss` and `val_loss` (mean cross-entropy, in nats) and `val_acc` (share of right answers).

    Args:
        lr: the highest learning rate of the one-cycle schedule.
        width: channels of the first block.
        num_classes: how many classes there are.
    """

    def __init__(self, lr: float = 5e-3, width: int = 32, num_classes: int = 10) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            block(1, width),
            block(width, width),
            nn.MaxPool2d(2),  # 8x8 -> 4x4
            block(width, 2 * width),
            nn.MaxPool2d(2),  # 4x4 -> 2x2
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(2 * width * 2 * 2, num_classes),
        )
        self.val_acc = MulticlassAccuracy(num_classes, average="micro")

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, 1, 8, 8) -> logits (batch, num_classes)."""
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self(images), labels)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self(images)
        self.val_acc(logits, labels)
        self.log("val_loss", nn.functional.cross_entropy(logits, labels), prog_bar=True, sync_dist=True)
        self.log("val_acc", self.val_acc, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.hparams.lr, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
