"""The callback that every Trainer of a job gets. Its hooks are many and short; the work is done by the modules beside."""

import importlib
import os
import signal
import time
import warnings
from typing import Any, Dict, Optional, Tuple, Type

from . import loops, process, resume, stopping
from .data import Loaders
from .progress import Progress
from .resume import Resumed
from .saving import Saving
from .say import guarded
from .stopping import Stop
from .told import PROGRESS_FILE, SAVING_FILE, Told

_PROGRESS = "progress is not told"
_LEDGER = "checkpoints are not listed"
_RESUME = "a checkpoint is gone on with as Lightning alone does it"
_STOP = "a stop saves no checkpoint"


def callback(package: str, told: Told) -> Any:
    """For Trainers of this package, `lightning.pytorch` or `pytorch_lightning`: each has a Callback of its own."""
    return _class(package)(told)


@guarded("the training begins anew")
def prepare(package: str, told: Told) -> None:
    resume.prepare(importlib.import_module(package).Trainer, told)


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
        self.stop: Optional[Stop] = None
        self.loaders: Optional[Loaders] = None
        self.resumed: Optional[Resumed] = None
        self.before_validation: Optional[Dict[str, Any]] = None
        self.raising = False  # an exception is under way, perhaps in this rank alone
        self.stopping = False

    def __reduce__(self) -> Tuple[Any, ...]:
        """Strategies that spawn processes send the callbacks there: what is open here stays here."""
        return callback, (self.package, self.told)

    # Every stage.

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._set_up(trainer)
        if stage == "fit":
            self._set_up_fit(trainer)

    @guarded(_PROGRESS)
    def _set_up(self, trainer: Any) -> None:
        self.raising = self.stopping = False
        self.stop = Stop(self.told, trainer.is_global_zero)
        self.stop.theirs = signal.getsignal(signal.SIGTERM)  # Lightning puts its own in its place, a moment later
        if trainer.is_global_zero:
            self.progress = Progress(self.told.file(PROGRESS_FILE), self.told.attempt)
            self.saving = Saving(self.told.file(SAVING_FILE))
            self.ledger = process.ledger(self.told, trainer)

    @guarded(_RESUME)
    def _set_up_fit(self, trainer: Any) -> None:
        self.resumed = self.before_validation = None
        self.loaders = Loaders(self._settle)
        self.loaders.started = self._pass_starts
        self.loaders.hang_on(trainer, self)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._saved()
        self._let_go(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.raising = True
        self._saved()
        self._let_go(trainer)

    @guarded(_RESUME)
    def _let_go(self, trainer: Any) -> None:
        if self.loaders is not None:
            self.loaders.let_go()
            self.loaders = None
        if trainer.state.fn == "fit":
            resume.ended(trainer)

    # Saving. Called on all ranks, before the file is written.

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Dict[str, Any]) -> None:
        self._saves()
        self._add_state(trainer, checkpoint)

    @guarded(_LEDGER)
    def _saves(self) -> None:
        if self.saving is not None:
            self.saving.begin()
        if self.ledger is not None:
            self.ledger.expect()

    @guarded(_RESUME)
    def _add_state(self, trainer: Any, checkpoint: Dict[str, Any]) -> None:
        if trainer.state.fn != "fit":
            return
        if self.stopping and trainer.validating and self.before_validation is not None:
            mine = self.before_validation
        else:
            mine = resume.state(trainer, self.loaders)
        checkpoint[resume.KEY] = resume.of_all_ranks(trainer, mine, together=not self.raising)

    @guarded(_LEDGER)
    def _saved(self) -> None:
        """Lightning tells nobody that a save is over: the next hook knows it is."""
        if self.saving is not None and self.saving.on and not self.stopping:
            self.saving.end()
            if self.ledger is not None:
                self.ledger.expect()

    # Resuming, in the sequence in which this is called.

    @guarded(_RESUME)
    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Dict[str, Any]) -> None:
        if trainer.state.fn == "fit" and self.loaders is not None:
            self.resumed = resume.resumed(trainer, checkpoint)
            if self.resumed is not None and self.resumed.open:
                self.loaders.wanted = self.resumed.loaders
                # It is here; what cannot be gone on with is told in our own words (resume.tell).
                warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")

    def _pass_starts(self, order: Any) -> None:
        if self.resumed is not None:
            self.resumed.passes(order)

    def _settle(self, kept: Dict[str, Any]) -> None:
        if self.resumed is not None:
            self.resumed.settle(kept)

    # Fit.

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._go_on(trainer)
        self._listen()
        self._begin_progress(trainer)

    @guarded(_RESUME)
    def _go_on(self, trainer: Any) -> None:
        resume.begun(trainer)
        if self.resumed is not None:
            if trainer.is_global_zero:
                resume.tell(trainer, self.resumed, self.loaders)
            self.resumed.start(trainer)

    @guarded(_STOP)
    def _listen(self) -> None:
        if self.stop is not None:
            self.stop.listen()

    @guarded(_PROGRESS)
    def _begin_progress(self, trainer: Any) -> None:
        if self.progress is not None:
            self.progress.start(trainer)
            self.progress.line(trainer, "fit", None, trainer.num_training_batches)

    @guarded(_PROGRESS)
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """The end of the epoch before is told here: what that logged is known only now."""
        self._saved()
        self._begin_epoch(trainer)
        if self.progress is not None and trainer.global_step:
            self.progress.line(trainer, "fit", 0, trainer.num_training_batches)

    @guarded(_RESUME)
    def _begin_epoch(self, trainer: Any) -> None:
        """Of the epoch that is gone on with (which Lightning calls a start before 2.5), or of the one behind it."""
        if self.resumed is None:
            return
        if not self.resumed.open:
            self.resumed.epoch_starts(trainer)
        elif not loops.goes_on(trainer):
            self.resumed = None
            if self.loaders is not None:
                self.loaders.begin_anew()

    @guarded(_RESUME)
    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.saving is not None and self.saving.on:
            self._saved()
        self.before_validation = None
        if self.resumed is not None:
            self.resumed.first_batch()
            self.resumed = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.progress is not None and time.monotonic() >= self.progress.next:
            self._tell(trainer, "fit", batch_idx + 1, trainer.num_training_batches)
        if self.stop is not None:
            wanted = self.stop.wanted(trainer)
            if wanted and stopping.may_end(trainer, wanted):
                self._end(trainer)
            self._note_validation(trainer)

    @guarded(_STOP)
    def _note_validation(self, trainer: Any) -> None:
        """A stop in a validation goes on behind the batch before it, and validates again."""
        if loops.validates_next(trainer):
            self.before_validation = resume.state(trainer, self.loaders)

    @guarded(_PROGRESS)
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._saved()
        if self.progress is not None:
            self.progress.line(trainer, "fit", None, trainer.num_training_batches)

    # Validation (of a fit, too), test, prediction.

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if self.resumed is not None:
            self.resumed.validated = True

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not trainer.sanity_checking:
            self._evaluates(trainer, "validate", batch_idx, trainer.num_val_batches)

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._evaluates(trainer, "test", batch_idx, trainer.num_test_batches)

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._evaluates(trainer, "predict", batch_idx, trainer.num_predict_batches)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._evaluated(trainer, "validate")

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._evaluated(trainer, "test")

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self._evaluated(trainer, "predict")

    def _evaluates(self, trainer: Any, stage: str, batch_idx: int, batches: Any) -> None:
        if self.progress is not None and time.monotonic() >= self.progress.next:
            self._tell(trainer, stage, batch_idx + 1, batches)
        fits = trainer.state.fn == "fit"
        if self.stop is not None and (not fits or self.before_validation is not None) and self.stop.wanted(trainer):
            self._end(trainer)

    def _evaluated(self, trainer: Any, stage: str) -> None:
        """The last line of a stage of its own; a fit tells what its validation found at its own next line."""
        if trainer.state.fn != "fit" and self.progress is not None:
            self._tell(trainer, stage, None, None)

    @guarded(_PROGRESS)
    def _tell(self, trainer: Any, stage: str, batch: Optional[int], batches: Any) -> None:
        if self.progress is not None:
            self.progress.line(trainer, stage, batch, batches)

    # Stopping, on all ranks.

    def _end(self, trainer: Any) -> None:
        assert self.stop is not None
        if self.stopping:
            return
        self.stopping = True
        saved, error = None, None
        if trainer.state.fn == "fit" and not trainer.fast_dev_run:
            try:
                saved = self._save(trainer)
            except Exception as failure:  # noqa: BLE001 - a full disk, for one: the job is to end all the same
                error = failure
        if trainer.is_global_zero:
            self._record(trainer, saved, error)
        if error is None:
            trainer.strategy.barrier("gpurun stop")
        stopping.end(trainer, self.stop)

    def _save(self, trainer: Any) -> str:
        path = trainer.strategy.broadcast(stopping.path(self.told, trainer))
        if trainer.is_global_zero:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        trainer.save_checkpoint(path)
        return str(path)

    @guarded(_STOP)
    def _record(self, trainer: Any, saved: Optional[str], error: Optional[BaseException]) -> None:
        """What the agent goes on from: told when it is on the disk, hashed and listed."""
        name = None
        if saved is not None:
            stopping.secure(saved)
            entry = self.ledger.record(saved) if self.ledger is not None else None
            name = os.path.relpath(saved, self.told.workspace)
            if entry is not None:
                stopping.drop_earlier(self.told, saved)
        stopping.record(self.told, trainer, self.stop.why if self.stop is not None else None, name)
        if self.saving is not None:
            self.saving.end()
        stopping.say_so(trainer, name, error)
