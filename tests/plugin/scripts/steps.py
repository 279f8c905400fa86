"""Many steps that do next to nothing: what each costs is Lightning's own, and ours."""

import time

import lightning.pytorch as pl
import torch

STEPS = 3000


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def on_train_start(self):
        self.began = time.process_time()

    def on_train_end(self):
        print("SECONDS", time.process_time() - self.began)
        print("STEPS", STEPS)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Timed:
    """A hook of the plugin's callback, and how long it takes."""

    seconds = 0.0

    def __init__(self, hook):
        self.hook = hook

    def __call__(self, *arguments):
        began = time.perf_counter()
        self.hook(*arguments)
        Timed.seconds += time.perf_counter() - began


data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(STEPS * 4, 4)), batch_size=4)
options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
trainer = pl.Trainer(max_epochs=1, accelerator="cpu", **options)
for callback in trainer.callbacks:
    if type(callback).__name__ == "Gpurun":
        for name in ("on_train_batch_start", "on_train_batch_end"):
            setattr(callback, name, Timed(getattr(callback, name)))
trainer.fit(Model(), data)
print("HOOKS", Timed.seconds)
