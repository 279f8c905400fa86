"""A long validation, outside any fit."""

import time

import lightning.pytorch as pl
import torch


class Model(pl.LightningModule):
    def validation_step(self, batch, batch_idx):
        time.sleep(0.02)


data = torch.utils.data.DataLoader(torch.zeros(5000, 1))
pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).validate(Model(), data)
