"""Saves in all the ways that users save: by callback, by hand, weights alone."""

import importlib
import sys

import torch

pl = importlib.import_module(sys.argv[1])


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val", [0.25, 0.75, 0.5][self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(80, 4)), batch_size=8)
kept = pl.callbacks.ModelCheckpoint("ck", "{epoch}-{val:.2f}", "val", mode="max", save_top_k=2, save_last=True)
trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[kept])
trainer.fit(Model(), data, data)
trainer.save_checkpoint("best_model.ckpt")
trainer.save_checkpoint("weights.ckpt", weights_only=True)
