"""Define the callback that every Trainer of a job gets. Its hooks are short; the modules beside do the work."""

import importlib
import os
import signal
import time
import warnings
from typing import Any, Dict, Optional, Tuple, Type

from . import loops, process, resume, stopping
from .data import Loaders
from .job_log import guarded
from .progress import Progress
from .resume import Resumed
from .saving import Saving
from .settings import PROGRESS_FILE, SAVING_FILE, Settings
from .stopping import Stop

_PROGRESS = "progress is not reported"
_LEDGER = "checkpoints are not listed"
_RESUME = "a checkpoint is resumed only as Lightning does it"
_STOP = "a stop saves no checkpoint"


def callback(package: str, settings: Settings) -> Any:
    """Return the callback for Trainers of this package, `lightning.pytorch` or `pytorch_lightning`."""
    return _class(package)(settings)


@guarded("the training starts from the beginning")
def prepare(package: str, settings: Settings) -> None:
    resume.prepare(importlib.import_module(package).Trainer, settings)


_classes: Dict[str, Type[Any]] = {}


def _class(package: str) -> Type[Any]:
    if package not in _classes:
        base = importlib.import_module(package).Callback
        _classes[package] = type("Gpurun", (Hooks, base), {"package": package})
    return _classes[package]


class Hooks:
    """The hooks. `callback` adds the base class of the Lightning package."""

    package = ""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.progress: Optional[Progress] = None
        self.saving: Optional[Saving] = None
        self.ledger: Optional[Any] = None
        self.stop: Optional[Stop] = None
        self.loaders: Optional[Loaders] = None
        self.resumed: Optional[Resumed] = None
        self.before_validation: Optional[Dict[str, Any]] = None
        self.raising = False  # an exception is being raised, perhaps only in this rank
        self.stopping = False

    def __reduce__(self) -> Tuple[Any, ...]:
        """Pickle only the settings, for strategies that send the callbacks to the processes that they spawn."""
        return callback, (self.package, self.settings)

    # Every stage.

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._set_up(trainer)
        if stage == "fit":
            self._set_up_fit(trainer)

    @guarded(_PROGRESS)
    def _set_up(self, trainer: Any) -> None:
        self.raising = self.stopping = False
        self.stop = Stop(self.settings, trainer.is_global_zero)
        self.stop.user_handler = signal.getsignal(signal.SIGTERM)  # Lightning replaces it a moment later
        if trainer.is_global_zero:
            self.progress = Progress(self.settings.file(PROGRESS_FILE), self.settings.attempt)
            self.saving = Saving(self.settings.file(SAVING_FILE))
            self.ledger = process.ledger(self.settings, trainer)

    @guarded(_RESUME)
    def _set_up_fit(self, trainer: Any) -> None:
        self.resumed = self.before_validation = None
        self.loaders = Loaders(self._settle)
        self.loaders.started = self._start_pass
        self.loaders.attach(trainer, self)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._end_save()
        self._detach(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.raising = True
        self._end_save()
        self._detach(trainer)

    @guarded(_RESUME)
    def _detach(self, trainer: Any) -> None:
        if self.loaders is not None:
            self.loaders.detach()
            self.loaders = None
        if trainer.state.fn == "fit":
            resume.note_fit_ended(trainer)

    # Saving. Called on all ranks before the file is written.

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Dict[str, Any]) -> None:
        self._begin_save()
        self._add_state(trainer, checkpoint)

    @guarded(_LEDGER)
    def _begin_save(self) -> None:
        if self.saving is not None:
            self.saving.begin()
        if self.ledger is not None:
            self.ledger.expect()

    @guarded(_RESUME)
    def _add_state(self, trainer: Any, checkpoint: Dict[str, Any]) -> None:
        if trainer.state.fn != "fit":
            return
        if self.stopping and trainer.validating and self.before_validation is not None:
            own_state = self.before_validation
        else:
            own_state = resume.state(trainer, self.loaders)
        checkpoint[resume.KEY] = resume.of_all_ranks(trainer, own_state, together=not self.raising)

    @guarded(_LEDGER)
    def _end_save(self) -> None:
        """Lightning has no hook for the end of a save, so the next hook of any kind ends it."""
        if self.saving is not None and self.saving.is_on and not self.stopping:
            self.saving.end()
            if self.ledger is not None:
                self.ledger.expect()

    # Resuming, in the order in which Lightning calls the hooks.

    @guarded(_RESUME)
    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Dict[str, Any]) -> None:
        if trainer.state.fn == "fit" and self.loaders is not None:
            self.resumed = resume.resumed(trainer, checkpoint)
            if self.resumed is not None and self.resumed.open:
                self.loaders.saved = self.resumed.loaders
                # It is resumable with the plugin; resume.print_resume says what is not exact.
                warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")

    def _start_pass(self, order: Any) -> None:
        if self.resumed is not None:
            self.resumed.start_pass(order)

    def _settle(self, kept: Dict[str, Any]) -> None:
        if self.resumed is not None:
            self.resumed.settle(kept)

    # Fit.

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._resume(trainer)
        self._handle_sigterm()
        self._begin_progress(trainer)

    @guarded(_RESUME)
    def _resume(self, trainer: Any) -> None:
        resume.note_fit_started(trainer)
        if self.resumed is not None:
            if trainer.is_global_zero:
                resume.print_resume(trainer, self.resumed, self.loaders)
            self.resumed.start(trainer)

    @guarded(_STOP)
    def _handle_sigterm(self) -> None:
        if self.stop is not None:
            self.stop.handle_sigterm()

    @guarded(_PROGRESS)
    def _begin_progress(self, trainer: Any) -> None:
        if self.progress is not None:
            self.progress.start(trainer)
            self.progress.line(trainer, "fit", None, trainer.num_training_batches)

    @guarded(_PROGRESS)
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Report the end of the previous epoch here, because its last metrics are known only now."""
        self._end_save()
        self._begin_epoch(trainer)
        if self.progress is not None and trainer.global_step:
            self.progress.line(trainer, "fit", 0, trainer.num_training_batches)

    @guarded(_RESUME)
    def _begin_epoch(self, trainer: Any) -> None:
        """Handle the start of the resumed epoch (Lightning before 2.5 calls the hook for it), or of the one after it."""
        if self.resumed is None:
            return
        if not self.resumed.open:
            self.resumed.start_epoch(trainer)
        elif not loops.is_restarting(trainer):
            self.resumed = None
            if self.loaders is not None:
                self.loaders.drop_replays()

    @guarded(_RESUME)
    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.saving is not None and self.saving.is_on:
            self._end_save()
        self.before_validation = None
        if self.resumed is not None:
            self.resumed.first_batch()
            self.resumed = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.progress is not None and time.monotonic() >= self.progress.next:
            self._report(trainer, "fit", batch_idx + 1, trainer.num_training_batches)
        if self.stop is not None:
            request = self.stop.agree(trainer)
            if request and stopping.may_end(trainer, request):
                self._end(trainer)
            self._note_validation(trainer)

    @guarded(_STOP)
    def _note_validation(self, trainer: Any) -> None:
        """Keep the state before a validation: after a stop in it, the run resumes there and validates again."""
        if loops.validates_next(trainer):
            self.before_validation = resume.state(trainer, self.loaders)

    @guarded(_PROGRESS)
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._end_save()
        if self.progress is not None:
            self.progress.line(trainer, "fit", None, trainer.num_training_batches)

    # Validation (also of a fit), test, prediction.

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if self.resumed is not None:
            self.resumed.validated = True

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not trainer.sanity_checking:
            self._evaluate_batch(trainer, "validate", batch_idx, trainer.num_val_batches)

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._evaluate_batch(trainer, "test", batch_idx, trainer.num_test_batches)

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._evaluate_batch(trainer, "predict", batch_idx, trainer.num_predict_batches)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._end_evaluation(trainer, "validate")

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._end_evaluation(trainer, "test")

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self._end_evaluation(trainer, "predict")

    def _evaluate_batch(self, trainer: Any, stage: str, batch_idx: int, batches: Any) -> None:
        if self.progress is not None and time.monotonic() >= self.progress.next:
            self._report(trainer, stage, batch_idx + 1, batches)
        is_fit = trainer.state.fn == "fit"
        if self.stop is not None and (not is_fit or self.before_validation is not None) and self.stop.agree(trainer):
            self._end(trainer)

    def _end_evaluation(self, trainer: Any, stage: str) -> None:
        """Write the last line of a separate stage. A fit reports its validation in its own next line."""
        if trainer.state.fn != "fit" and self.progress is not None:
            self._report(trainer, stage, None, None)

    @guarded(_PROGRESS)
    def _report(self, trainer: Any, stage: str, batch: Optional[int], batches: Any) -> None:
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
            except Exception as failure:  # noqa: BLE001 - a full disk, for example; the job must end anyway
                error = failure
        if trainer.is_global_zero:
            self._record(trainer, saved, error)
        if error is None:
            trainer.strategy.barrier("gpurun stop")
        stopping.end(trainer, self.stop)

    def _save(self, trainer: Any) -> str:
        path = trainer.strategy.broadcast(stopping.checkpoint_path(self.settings, trainer))
        if trainer.is_global_zero:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        trainer.save_checkpoint(path)
        return str(path)

    @guarded(_STOP)
    def _record(self, trainer: Any, saved: Optional[str], error: Optional[BaseException]) -> None:
        """Record the checkpoint to resume from, after it is on the disk, hashed and in the ledger."""
        name = None
        if saved is not None:
            stopping.flush_to_disk(saved)
            entry = self.ledger.record(saved) if self.ledger is not None else None
            name = os.path.relpath(saved, self.settings.workspace)
            if entry is not None:
                stopping.remove_earlier(self.settings, saved)
        stopping.record(self.settings, trainer, self.stop.reason if self.stop is not None else None, name)
        if self.saving is not None:
            self.saving.end()
        stopping.print_outcome(trainer, name, error)
