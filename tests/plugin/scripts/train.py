"""A training as users write them, with a flag for each thing that a resumed run may get wrong. It knows nothing of gpurun.

Leaves `weights` (a digest of the final ones) and `seen-RANK` (a line for each batch: epoch, batch, samples).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, WeightedRandomSampler

parser = argparse.ArgumentParser()
parser.add_argument("--package", default="lightning.pytorch")
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--max-steps", type=int, default=-1)
parser.add_argument("--samples", type=int, default=80)
parser.add_argument("--workers", type=int, default=0)
parser.add_argument("--persistent", action="store_true")
parser.add_argument("--devices", type=int, default=1)
parser.add_argument("--strategy", default="auto")
parser.add_argument("--no-validation", action="store_true")
parser.add_argument("--val-interval", type=int)
parser.add_argument("--accumulate", type=int, default=1)
parser.add_argument("--manual", action="store_true")
parser.add_argument("--sampler", default="shuffle")
parser.add_argument("--loaders", type=int, default=1)
parser.add_argument("--plateau", action="store_true")
parser.add_argument("--every", type=int, help="ModelCheckpoint(every_n_train_steps)")
parser.add_argument("--keep", action="store_true", help="all checkpoints")
parser.add_argument("--stop-at", type=int, default=-1, help="ask for a stop in this training step (global, from 0)")
parser.add_argument("--stop-in-validation", type=int, default=-1, help="... in this validation step")
parser.add_argument("--term", action="store_true", help="ask by SIGTERM instead")
parser.add_argument("--kill-at", type=int, default=-1)
parser.add_argument("--handler", action="store_true", help="a handler for SIGTERM of the script's own")
parser.add_argument("--sleep", type=float, default=0.0)
args = parser.parse_args()
pl = importlib.import_module(args.package)
RANK = int(os.environ.get("LOCAL_RANK", "0"))


def ask_to_stop() -> None:
    """What the agent does, seen at once: the file is looked for five times a second."""
    if args.term:
        if RANK == 0:
            os.kill(os.getpid(), signal.SIGTERM)
    else:
        Path(os.environ.get("GPURUN_OUT", "."), "stop").touch()
    time.sleep(0.6)


class Samples(Dataset):
    def __len__(self) -> int:
        return args.samples

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
        made = torch.Generator().manual_seed(index)
        noise = 0.01 * torch.randn(4) + 0.01 * random.random() if args.workers == 0 else torch.zeros(4)
        return index, torch.randn(4, generator=made) + noise


class Stream(IterableDataset):
    def __iter__(self):
        for index in range(args.samples):
            yield index, torch.full((4,), float(index))


class Buckets:
    """A batch sampler of the user's own, which shuffles with Python's random numbers."""

    def __iter__(self):
        order = list(range(args.samples))
        random.shuffle(order)
        return iter([order[at : at + 8] for at in range(0, args.samples, 8)])

    def __len__(self) -> int:
        return args.samples // 8


class Model(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 16), torch.nn.BatchNorm1d(16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 1)
        )
        self.steps = 0
        self.automatic_optimization = not args.manual

    def training_step(self, batch, batch_idx):
        parts = list(batch.values()) if isinstance(batch, dict) else [batch]
        indices = [part[0].tolist() for part in parts]
        total = self.trainer.fit_loop.epoch_loop.total_batch_idx
        with open(f"seen-{RANK}", "a") as file:
            print(self.current_epoch, batch_idx, indices, file=file)
        if total == args.stop_at:
            ask_to_stop()
        if total == args.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(args.sleep)
        jitter = random.random() + float(np.random.rand())
        loss = sum((self.net(part[1]) - jitter).pow(2).mean() for part in parts)
        self.log("loss", loss.detach())
        if args.manual:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def validation_step(self, batch, batch_idx):
        self.steps += 1
        if self.steps - 1 == args.stop_in_validation and not self.trainer.sanity_checking:
            ask_to_stop()
        self.log("val_loss", self.net(batch[1]).pow(2).mean(), sync_dist=True)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        if not args.plateau:
            return optimizer
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}


def loader() -> DataLoader:
    data = Samples()
    more = {"num_workers": args.workers, "persistent_workers": args.persistent}
    if args.sampler == "stream":
        return DataLoader(Stream(), batch_size=8, **more)
    if args.sampler == "buckets":
        return DataLoader(data, batch_sampler=Buckets(), **more)
    if args.sampler == "weighted":
        return DataLoader(data, batch_size=8, sampler=WeightedRandomSampler([1.0] * args.samples, args.samples), **more)
    if args.sampler == "generator":
        return DataLoader(data, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(3), **more)
    if args.sampler == "replacement":
        drawn = RandomSampler(data, replacement=True, num_samples=args.samples, generator=torch.Generator())
        return DataLoader(data, batch_sampler=BatchSampler(drawn, 8, drop_last=False), **more)
    return DataLoader(data, batch_size=8, shuffle=args.sampler == "shuffle", **more)


def loaders():
    if args.loaders == 1:
        return loader()
    short = torch.utils.data.Subset(Samples(), range(24))
    return {"long": loader(), "short": DataLoader(short, batch_size=8, shuffle=True)}


def main() -> None:
    if args.handler:
        signal.signal(signal.SIGTERM, lambda number, frame: print("their own handler", flush=True))
    pl.seed_everything(7)
    monitor = None if args.no_validation or args.keep else "val_loss"
    callbacks = [pl.callbacks.ModelCheckpoint("checkpoints", monitor=monitor, save_top_k=-1 if args.keep else 1)]
    if args.every:
        name = "{step}"
        callbacks.append(
            pl.callbacks.ModelCheckpoint("steps", filename=name, every_n_train_steps=args.every, save_top_k=-1)
        )
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        max_steps=args.max_steps,
        accelerator="cpu",
        devices=args.devices,
        strategy=args.strategy,
        accumulate_grad_batches=args.accumulate,
        val_check_interval=args.val_interval,
        limit_val_batches=0 if args.no_validation else 1.0,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    model = Model()
    validation = None if args.no_validation else DataLoader(Samples(), batch_size=16)
    trainer.fit(model, loaders(), validation)
    if trainer.is_global_zero:
        digest = hashlib.sha256()
        for name, value in sorted(model.state_dict().items()):
            digest.update(name.encode() + value.numpy().tobytes())
        Path("weights").write_text(digest.hexdigest())
        print(f"fit ended after {trainer.global_step} steps", file=sys.stderr)


if __name__ == "__main__":
    main()
