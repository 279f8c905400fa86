"""Two Trainers and three fits: only the first may go on from the run's checkpoint."""

import importlib
import sys

import torch

pl = importlib.import_module(sys.argv[1])
theirs = sys.argv[2] if len(sys.argv) > 2 else None


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).pow(2).mean()

    def test_step(self, batch, batch_idx):
        self.log("test", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Odd(list):
    """In the checkpoint of many.py."""


def trainer(epochs):
    return pl.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False)


data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(80, 4)), batch_size=8)
first, second = trainer(4), trainer(1)
first.fit(Model(), data, ckpt_path=theirs)
print("FIRST", first.global_step)
print("TEST", sorted(first.test(Model(), data)[0]))
second.fit(Model(), data)
print("SECOND", second.global_step)
first.fit(Model(), data)
print("AGAIN", first.global_step)
