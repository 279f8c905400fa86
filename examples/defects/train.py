"""Train the inspector: `python train.py --epochs 10`.

Writes `checkpoints/best.ckpt` (by `val_f1`), `checkpoints/last.ckpt`, and TensorBoard and CSV logs under `logs/`.
"""

from __future__ import annotations

import argparse
import sys
import warnings

from data.surfaces import CLASSES, SHARES, SurfacesDataModule
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info
from models.inspector import Inspector

# The whole data set lies in memory as tensors: worker processes would only cost.
warnings.filterwarnings("ignore", message=".*does not have many workers.*")


class EpochLine(Callback):
    """One line an epoch, for a log that no terminal reads."""

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        figures = "  ".join(f"{name} {metrics[name]:.4f}" for name in ("train_loss", "val_loss", "val_f1"))
        rank_zero_info(f"epoch {trainer.current_epoch}/{trainer.max_epochs - 1}  {figures}")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=10, help="passes over the training images, at most")
    parser.add_argument("--lr", type=float, default=4e-3, help="highest learning rate of the schedule")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step, for each process")
    parser.add_argument("--images", type=int, default=6000, help="how many images are drawn to learn from")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and order")
    parser.add_argument("--accelerator", default="auto", help="auto, cpu, gpu, ...")
    parser.add_argument("--devices", default="auto", help="auto, a number, or ids as in 0,2")
    parser.add_argument("--precision", default="32-true", help="32-true, bf16-mixed, 16-mixed, ...")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    seed_everything(args.seed, workers=True)
    best = ModelCheckpoint(
        "checkpoints",
        filename="best",
        monitor="val_f1",
        mode="max",
        enable_version_counter=False,
    )
    last = ModelCheckpoint("checkpoints", filename="last", enable_version_counter=False)  # of each epoch
    in_terminal = sys.stderr.isatty()
    trainer = Trainer(
        accelerator=args.accelerator,
        devices=args.devices,
        precision=args.precision,
        max_epochs=args.epochs,
        callbacks=[
            best,
            last,
            EarlyStopping(monitor="val_f1", mode="max", patience=6),
            LearningRateMonitor(logging_interval="step"),
            *([] if in_terminal else [EpochLine()]),
        ],
        logger=[TensorBoardLogger("logs", name="tensorboard"), CSVLogger("logs", name="csv")],
        log_every_n_steps=20,
        enable_progress_bar=in_terminal,
    )
    data = SurfacesDataModule(batch_size=args.batch_size, train_images=args.images)
    trainer.fit(Inspector(shares=SHARES, names=CLASSES, lr=args.lr), datamodule=data)
    rank_zero_info(f"best val_f1 {best.best_model_score:.4f}  {best.best_model_path}")


if __name__ == "__main__":
    main()
