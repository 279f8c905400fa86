"""A ResNet for images of 32x32 pixels."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

# Of the training images, each channel in [0, 1].
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Residual(nn.Module):
    """Two 3x3 convolutions beside a way around: (batch, channels_in, h, w) -> (batch, channels_out, h/stride, w/stride)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.around = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.around = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.relu(self.body(features) + self.around(features))


def augmented(images: Tensor) -> Tensor:
    """Each image mirrored or not and moved by up to 4 pixels, what is empty then black. (batch, 3, 32, 32), on its device."""
    count, _, height, width = images.shape
    mirror = torch.rand(count, 1, 1, 1, device=images.device) < 0.5
    images = torch.where(mirror, images.flip(3), images)
    padded = nn.functional.pad(images, (4, 4, 4, 4))
    down, right = torch.randint(9, (2, count, 1), device=images.device)
    rows = (down + torch.arange(height, device=images.device))[:, None, :, None]  # (batch, 1, 32, 1)
    columns = (right + torch.arange(width, device=images.device))[:, None, None, :]
    which = torch.arange(count, device=images.device)[:, None, None, None]
    channels = torch.arange(3, device=images.device)[None, :, None, None]
    return padded[which, channels, rows, columns]


class CIFAR10Classifier(LightningModule):
    """A ResNet-18 (two residual blocks in each of four stages) for images of shape (batch, 3, 32, 32), uint8 in 0..255.

    Logs `train_loss` and `val_loss` (mean cross-entropy, in nats) and `val_acc` (share of right answers).

    Args:
        lr: the highest learning rate of the one-cycle schedule.
        width: channels of the first stage; each further one has twice as many.
    """

    def __init__(self, lr: float = 0.2, width: int = 64) -> None:
        super().__init__()
        self.save_hyperparameters()
        stages = []
        channels = width
        for stage in range(4):
            stages += [
                Residual(channels, width << stage, 2 if stage else 1),
                Residual(width << stage, width << stage, 1),
            ]
            channels = width << stage
        self.net = nn.Sequential(
            nn.Conv2d(3, width, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            *stages,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, 10),
        )
        # The order in memory that tensor cores want.
        self.net.to(memory_format=torch.channels_last)
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.val_acc = MulticlassAccuracy(10, average="micro")

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, 3, 32, 32) as uint8 -> logits (batch, 10)."""
        scaled = (images - self.mean) / self.std
        return self.net(scaled.contiguous(memory_format=torch.channels_last))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self(augmented(images)), labels, label_smoothing=0.1)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self(images)
        self.val_acc(logits, labels)
        self.log("val_loss", nn.functional.cross_entropy(logits, labels), prog_bar=True, sync_dist=True)
        self.log("val_acc", self.val_acc, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.SGD(
            self.parameters(), lr=self.hparams.lr, momentum=0.9, weight_decay=5e-4, nesterov=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.hparams.lr, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
