"""Tells good parts from bad ones, and names the defect, where good parts are nine of ten."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    BinaryPrecision,
    BinaryRecall,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)


def block(channels_in: int, channels_out: int) -> nn.Sequential:
    """3x3 convolution, normalised, halved: (batch, channels_in, h, w) -> (batch, channels_out, h/2, w/2)."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


class Inspector(LightningModule):
    """Classifies grey images of shape (batch, 1, h, w); class 0 is a good part.

    Accuracy says nothing here: to call every part good is right nine times of ten. Logged are `val_f1` (mean over the
    classes, each counting the same), `val_precision` (of the parts that are thrown out, how many are bad) and `val_recall`
    (of the bad parts, how many are thrown out), and precision and recall of each class.

    Args:
        shares: how often each class occurs. Rare ones weigh more in the loss, with the inverse square root of that.
        names: of the classes, for the log.
        lr: the highest learning rate of the one-cycle schedule.
        width: channels of the first block.
    """

    def __init__(self, shares: Sequence[float], names: Sequence[str], lr: float = 4e-3, width: int = 16) -> None:
        super().__init__()
        self.save_hyperparameters()
        classes = len(names)
        self.net = nn.Sequential(
            block(1, width),
            block(width, 2 * width),
            block(2 * width, 4 * width),
            nn.Conv2d(4 * width, 4 * width, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(1),  # a defect is a small part of the picture: the mean would drown it
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(4 * width, classes),
        )
        weights = torch.tensor(shares, dtype=torch.float32).rsqrt()
        self.register_buffer("weights", weights / weights.mean(), persistent=False)
        self.val_f1 = MulticlassF1Score(classes, average="macro")
        self.each = MetricCollection(
            {
                "precision": MulticlassPrecision(classes, average="none"),
                "recall": MulticlassRecall(classes, average="none"),
            }
        )
        self.bad = MetricCollection({"val_precision": BinaryPrecision(), "val_recall": BinaryRecall()})

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, 1, h, w) -> logits (batch, classes)."""
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self(images), labels, weight=self.weights)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self(images)
        found = logits.argmax(dim=1)
        self.val_f1.update(found, labels)
        self.each.update(found, labels)
        self.bad.update((found > 0).int(), (labels > 0).int())
        loss = nn.functional.cross_entropy(logits, labels, weight=self.weights)
        self.log("val_loss", loss, prog_bar=True, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        self.log("val_f1", self.val_f1, prog_bar=True)
        self.log_dict(self.bad)
        # A metric that gives several numbers is computed here, and reset by hand.
        for kind, values in self.each.compute().items():
            self.log_dict({f"val_{kind}_{name}": value for name, value in zip(self.hparams.names, values, strict=True)})
        self.each.reset()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.hparams.lr, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
