"""Train on CIFAR-10: `python train.py --epochs 20 --devices 2`.

Writes `checkpoints/best.ckpt`, `checkpoints/last.ckpt`, and TensorBoard and CSV logs under `logs/`; with `--logger`, to
Weights & Biases or MLflow besides, which read their variables themselves (WANDB_API_KEY; MLFLOW_TRACKING_URI).
"""

from __future__ import annotations

import argparse
import os
import sys

import torch
from data.cifar10 import CIFAR10DataModule
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_info
from models.resnet import CIFAR10Classifier


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
    parser.add_argument("--epochs", type=int, default=20, help="passes over the training images, at most")
    parser.add_argument("--lr", type=float, default=0.2, help="highest learning rate of the schedule")
    parser.add_argument("--batch-size", type=int, default=256, help="images a step, for each process")
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage")
    parser.add_argument("--workers", type=int, default=2, help="loader processes, for each process that trains")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and order")
    parser.add_argument("--accelerator", default="auto", help="auto, cpu, gpu, ...")
    parser.add_argument("--devices", default="auto", help="auto, a number, or ids as in 0,2; several train by DDP")
    parser.add_argument("--precision", default="auto", help="auto, 32-true, bf16-mixed, 16-mixed, ...")
    parser.add_argument("--logger", choices=("wandb", "mlflow"), help="one more logger; it must be installed")
    parser.add_argument("--fake-data", action="store_true", help="made-up images, nothing is downloaded")
    return parser.parse_args(argv)


def best_precision(accelerator: str) -> str:
    """bf16 where the GPU computes in it, else full precision."""
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"


def loggers(more: str | None) -> list[Logger]:
    """TensorBoard and CSV, and the one that was asked for, under the run's own name."""
    found: list[Logger] = [TensorBoardLogger("logs", name="tensorboard"), CSVLogger("logs", name="csv")]
    name = os.environ.get("GPURUN_RUN_ID")
    if more == "wandb":
        found.append(WandbLogger(project="cifar10", name=name, save_dir="logs"))
    elif more == "mlflow":
        where = os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///logs/mlflow.db")
        found.append(MLFlowLogger("cifar10", run_name=name, tracking_uri=where))
    return found


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    seed_everything(args.seed, workers=True)
    torch.backends.cudnn.benchmark = True  # all batches have one shape
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
        precision=best_precision(args.accelerator) if args.precision == "auto" else args.precision,
        max_epochs=args.epochs,
        callbacks=[
            best,
            last,
            EarlyStopping(monitor="val_acc", mode="max", patience=8),
            LearningRateMonitor(logging_interval="step"),
            *([] if in_terminal else [EpochLine()]),
        ],
        logger=loggers(args.logger),
        log_every_n_steps=20,
        enable_progress_bar=in_terminal,
    )
    data = CIFAR10DataModule(batch_size=args.batch_size, workers=args.workers, fake=args.fake_data)
    trainer.fit(CIFAR10Classifier(lr=args.lr, width=args.width), datamodule=data)
    rank_zero_info(f"best val_acc {best.best_model_score:.4f}  {best.best_model_path}")


if __name__ == "__main__":
    main()
