"""Read the private attributes of Lightning in one place. Tested with Lightning 2.1, 2.4, 2.5 and 2.6."""

from typing import Any, Dict, List


def metrics(trainer: Any) -> Dict[str, Any]:
    """Return the last logged metrics. The public property would compute means on rank zero, and wait for the other ranks."""
    connector = getattr(trainer, "_logger_connector", None)
    logged: Dict[str, Any] = getattr(connector, "_callback_metrics", None) or {}
    return logged


def batches_done(trainer: Any) -> int:
    """Return the number of trained batches of this epoch."""
    return int(trainer.fit_loop.epoch_loop.batch_progress.current.processed)


def epoch_is_open(trainer: Any) -> bool:
    """Return whether batches of the epoch are left, or the work after its last batch is not finished."""
    progress = trainer.fit_loop.epoch_progress.current
    return bool(progress.processed < progress.ready)


def epoch_ends(trainer: Any) -> bool:
    """Return whether the hooks of the epoch's end run now. After them, only ReduceLROnPlateau is updated."""
    progress = trainer.fit_loop.epoch_progress.current
    return bool(progress.processed == progress.completed + 1)


def update_plateaus(trainer: Any, epoch: int) -> None:
    """Update ReduceLROnPlateau, as Lightning does after the epoch-end hooks: the checkpoints saved in them lack it."""
    for config in trainer.lr_scheduler_configs:
        metric = trainer.callback_metrics.get(config.monitor)
        due = config.reduce_on_plateau and config.interval == "epoch" and (epoch + 1) % config.frequency == 0
        if due and metric is not None and trainer.lightning_module.automatic_optimization:
            trainer.lightning_module.lr_scheduler_step(config.scheduler, metric)


def batch_has_ended(trainer: Any) -> bool:
    """Return whether the batch was trained and its end hooks run now."""
    progress = trainer.fit_loop.epoch_loop.batch_progress.current
    return bool(progress.processed == progress.completed + 1)


def accumulates(trainer: Any) -> bool:
    """Return whether this batch's gradients are accumulated with the next ones, so that no checkpoint has them."""
    loop = trainer.fit_loop
    return bool(trainer.lightning_module.automatic_optimization and loop._should_accumulate())


def validates_next(trainer: Any) -> bool:
    """Return whether a validation follows this batch. Lightning's own check is too slow for every batch."""
    loop = trainer.fit_loop
    progress, every = loop.epoch_loop.batch_progress, trainer.val_check_batch
    done = progress.total.ready if trainer.check_val_every_n_epoch is None else progress.current.ready
    if every is not None and done % every and not (progress.is_last_batch or trainer.should_stop):
        return False
    return bool(loop.epoch_loop._should_check_val_fx(loop._data_fetcher))


def loaders(trainer: Any) -> List[Any]:
    """Return the training loaders."""
    combined = getattr(trainer.fit_loop, "_combined_loader", None)
    return list(getattr(combined, "flattened", ()))


def cycles(trainer: Any) -> bool:
    """Return whether a shorter loader starts again beside a longer one."""
    combined = getattr(trainer.fit_loop, "_combined_loader", None)
    return getattr(combined, "_mode", "max_size_cycle") == "max_size_cycle"


def is_restarting(trainer: Any) -> bool:
    """Return whether no batch was trained since the checkpoint was loaded."""
    return bool(trainer.fit_loop.epoch_loop.restarting)


def requests_data_twice(trainer: Any) -> bool:
    """Return whether a fit that resumes at an epoch's end requests the first pass twice, as before Lightning 2.6."""
    return not hasattr(trainer.fit_loop, "is_resuming")


def mark_not_restarting(trainer: Any) -> None:
    """Let Lightning update ReduceLROnPlateau at the end of a resumed epoch.

    It skips the update because it has lost the metrics of the epoch, but `resume` restores them.
    """
    trainer.fit_loop._restarting = False


def complete_batch(loops: Dict[str, Any], *, stepped: bool, validates: bool) -> None:
    """Mark the batch that was at its end when the checkpoint was saved as completed, in the checkpoint's loops.

    Without this, Lightning would repeat the batch (before 2.5), or skip what follows it: the validation that was due, the end
    of the epoch (2.5, 2.6).
    """
    fit = loops["fit_loop"]
    batches = fit["epoch_loop.batch_progress"]
    for part in ("total", "current"):
        batches[part]["completed"] = batches[part]["processed"]
    if stepped:
        fit["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
    if validates:  # as if the validation had been interrupted in its first batch
        begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        fit["epoch_loop.val_loop.batch_progress"].update(total=dict(begun), current=dict(begun), is_last_batch=False)
