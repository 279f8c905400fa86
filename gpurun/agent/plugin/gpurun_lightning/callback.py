"""The callback that every Trainer of a job gets. Its hooks are many and short; the work is done by the modules beside."""

import importlib
import time
from typing import Any, Dict, Optional, Tuple, Type

from . import process
from .progress import Progress
from .saving import Saving
from .say import guarded
from .told import PROGRESS_FILE, SAVING_FILE, Told

_PROGRESS = "progress is not told"
_LEDGER = "checkpoints are not listed"


def callback(package: str, told: Told) -> Any:
    """For Trainers of this package, `lightning.pytorch` or `pytorch_lightning`: each has a Callback of its own."""
    return _class(package)(told)


_classes: Dict[str, Type[Any]] = {}


def _class(package: str) -> Type[Any]:
    if package not in _classes:
        base = importlib.import_module(package).Callback
        _classes[package] = type("Gpurun", (Hooks, base), {"package": package})
    return _classes[package]


class Hooks:
    """The hooks, without Lightning's base class, which `callback` puts beside."""

    package = ""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.progress: Optional[Progress] = None
        self.saving: Optional[Saving] = None
        self.ledger: Optional[Any] = None

    def __reduce__(self) -> Tuple[Any, ...]:
        """Strategies that spawn processes send the callbacks there: what is open here stays here."""
        return callback, (self.package, self.told)

    # Every stage.

    @guarded(_PROGRESS)
    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if trainer.is_global_zero:
            self.progress = Progress(self.told.file(PROGRESS_FILE), self.told.attempt)
            self.saving = Saving(self.told.file(SAVING_FILE))
            self.ledger = process.ledger(self.told, trainer)

    @guarded(_LEDGER)
    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._saved()

    # Saving. Called on all ranks, before the file is written.

    @guarded(_LEDGER)
    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Dict[str, Any]) -> None:
        if self.saving is not None:
            self.saving.begin()
        if self.ledger is not None:
            self.ledger.expect()

    def _saved(self) -> None:
        if self.saving is not None and self.saving.on:
            self.saving.end()
            if self.ledger is not None:
                self.ledger.expect()

    # Fit.

    @guarded(_PROGRESS)
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self.progress is not None:
            self.progress.start(trainer)
            self.progress.line(trainer, "fit", None, trainer.num_training_batches)

    @guarded(_PROGRESS)
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Here, not at the end of the epoch before: what that logged is known only now."""
        self._saved()
        if self.progress is not None and trainer.global_step:
            self.progress.line(trainer, "fit", 0, trainer.num_training_batches)

    @guarded(_LEDGER)
    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._saved()

    @guarded(_PROGRESS)
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.progress is not None and time.monotonic() >= self.progress.next:
            self.progress.line(trainer, "fit", batch_idx + 1, trainer.num_training_batches)

    @guarded(_PROGRESS)
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._saved()
        if self.progress is not None:
            self.progress.line(trainer, "fit", None, trainer.num_training_batches)

    # Validation (of a fit, too), test, prediction.

    @guarded(_PROGRESS)
    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.progress is not None and not trainer.sanity_checking and time.monotonic() >= self.progress.next:
            self.progress.line(trainer, "validate", batch_idx + 1, trainer.num_val_batches)

    @guarded(_PROGRESS)
    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.progress is not None and time.monotonic() >= self.progress.next:
            self.progress.line(trainer, "test", batch_idx + 1, trainer.num_test_batches)

    @guarded(_PROGRESS)
    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.progress is not None and time.monotonic() >= self.progress.next:
            self.progress.line(trainer, "predict", batch_idx + 1, trainer.num_predict_batches)

    @guarded(_PROGRESS)
    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._evaluated(trainer, "validate")

    @guarded(_PROGRESS)
    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._evaluated(trainer, "test")

    @guarded(_PROGRESS)
    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self._evaluated(trainer, "predict")

    def _evaluated(self, trainer: Any, stage: str) -> None:
        self._saved()
        if self.progress is not None and not trainer.sanity_checking:
            self.progress.line(trainer, stage, None, None)
