"""Train the digit classifier: `python train.py --epochs 30 --lr 5e-3`.

Writes `checkpoints/best.ckpt`, `checkpoints/last.ckpt`, and TensorBoard and CSV logs under `logs/`.
"""

from __future__ import annotations

import argparse
import sys
import warnings

from data.digits import DigitsDataModule
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info
from models.cnn import DigitsClassifier

# The whole data set lies in memory as tensors: worker processes would only cost.
warnings.filterwarnings("ignore", message=".*does not have many workers.*")


class EpochLine(Callback):
    """One line an epoch, for a log that no terminal reads."""

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        figures = "  ".join(f"{name} {metrics[name]:.4f}" for name in ("train_loss", "val_loss", "val_acc"))
        rank_zero_info(f"epoch {trainer.current_epoch}/{trainer.max_epochs - 1}  {figures}")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=30, help="passes over the training images, at most")
    parser.add_argument("--lr", type=float, default=5e-3, help="highest learning rate of the schedule")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step, for each process")
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
        monitor="val_acc",
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
            EarlyStopping(monitor="val_acc", mode="max", patience=12),
            LearningRateMonitor(logging_interval="step"),
            *([] if in_terminal else [EpochLine()]),
        ],
        logger=[TensorBoardLogger("logs", name="tensorboard"), CSVLogger("logs", name="csv")],
        log_every_n_steps=10,
        enable_progress_bar=in_terminal,
    )
    trainer.fit(DigitsClassifier(lr=args.lr), datamodule=DigitsDataModule(batch_size=args.batch_size))
    rank_zero_info(f"best val_acc {best.best_model_score:.4f}  {best.best_model_path}")


if __name__ == "__main__":
    main()
