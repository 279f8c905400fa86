"""Writes checkpoints in place, slowly, as a full disk or a network file system does; `versions` has the digests of whole ones."""

import hashlib
import io
import os
import sys
import time

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO


class Slow(TorchCheckpointIO):
    def save_checkpoint(self, checkpoint, path, storage_options=None):
        memory = io.BytesIO()
        torch.save(checkpoint, memory)
        data = memory.getvalue()
        with open("versions", "a") as versions:
            print(hashlib.sha256(data).hexdigest(), file=versions)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            for at in range(0, len(data), len(data) // 16 + 1):
                file.write(data[at : at + len(data) // 16 + 1])
                file.flush()
                time.sleep(0.02)


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(40, 400)

    def training_step(self, batch, batch_idx):
        time.sleep(0.02)
        return self.layer(batch[0]).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(80, 40)), batch_size=8)
trainer = pl.Trainer(
    max_epochs=epochs,
    accelerator="cpu",
    logger=False,
    plugins=[Slow()],
    enable_progress_bar=False,
    callbacks=[
        pl.callbacks.ModelCheckpoint("ck", "last", every_n_epochs=3, save_top_k=1, enable_version_counter=False),
        pl.callbacks.ModelCheckpoint("all", "{epoch}", every_n_epochs=8, save_top_k=-1),
    ],
)
trainer.fit(Model(), data)
