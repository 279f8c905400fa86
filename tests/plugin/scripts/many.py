"""Everything that a Trainer does beside one fit; each prints what came of it."""

import importlib
import sys

import torch

pl = importlib.import_module(sys.argv[1])


class Model(pl.LightningModule):
    def __init__(self, sizes):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val", self.training_step(batch, batch_idx))

    def test_step(self, batch, batch_idx):
        self.log("test", self.training_step(batch, batch_idx))

    def predict_step(self, batch, batch_idx):
        return self.layer(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Odd(list):
    """Hyperparameters of a class of its own, which torch loads only if it trusts the file."""


def trainer(**more):
    return pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, **more)


pl.seed_everything(1)
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(80, 4)), batch_size=8, shuffle=True)
model = Model(Odd([4, 1]))
trainer(fast_dev_run=True).fit(model, data, data)
first = trainer(max_epochs=2, default_root_dir="first", callbacks=[pl.callbacks.EarlyStopping("val", patience=9)])
first.fit(model, data, data)
print("FIRST", first.global_step)
print("VALIDATE", sorted(first.validate(model, data)[0]))
print("TEST", sorted(first.test(ckpt_path="best", dataloaders=data, weights_only=False)[0]))
print("PREDICT", len(first.predict(model, data)))
second = trainer(max_epochs=1, default_root_dir="second")
second.fit(Model(Odd([4, 1])), data)
print("SECOND", second.global_step)
first.fit_loop.max_epochs = 3
first.fit(model, data, data)
print("AGAIN", first.global_step)
print("LOADER", type(data.batch_sampler).__name__)
