"""Train for a while and print how fast, without the start: `{"steps_per_s", "cpu_ms_per_step"}`."""

from __future__ import annotations

import argparse
import json
import time

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--accelerator", default="auto")
parser.add_argument("--width", type=int, default=4, help="of each of four layers")
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--steps", type=int, default=3000)
parser.add_argument("--warm-up", type=int, default=100, help="steps before the clock starts")
args = parser.parse_args()


class Model(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        layers = [torch.nn.Linear(args.width, args.width) for _ in range(4)]
        self.net = torch.nn.Sequential(*layers)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        if batch_idx == args.warm_up:
            self._wait()
            self.began, self.began_cpu = time.perf_counter(), time.process_time()
        return self.net(batch[0]).pow(2).mean()

    def on_train_end(self) -> None:
        self._wait()
        steps = args.steps - args.warm_up
        seconds, cpu = time.perf_counter() - self.began, time.process_time() - self.began_cpu
        print(json.dumps({"steps_per_s": steps / seconds, "cpu_ms_per_step": 1e3 * cpu / steps}), flush=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


torch.set_num_threads(1)
data = TensorDataset(torch.randn(args.steps * args.batch, args.width))
trainer = pl.Trainer(
    max_epochs=1,
    accelerator=args.accelerator,
    devices=1,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(Model(), DataLoader(data, batch_size=args.batch))
