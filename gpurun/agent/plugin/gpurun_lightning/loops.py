"""Read the private attributes of Lightning in one place. Tried with Lightning 2.1, 2.4, 2.5 and 2.6."""

from typing import Any, Dict, List


def metrics(trainer: Any) -> Dict[str, Any]:
    """What was logged last. The public property would compute means on rank zero alone, and wait for the others."""
    connector = getattr(trainer, "_logger_connector", None)
    found: Dict[str, Any] = getattr(connector, "_callback_metrics", None) or {}
    return found


def batches_done(trainer: Any) -> int:
    """Of this epoch."""
    return int(trainer.fit_loop.epoch_loop.batch_progress.current.processed)


def epoch_is_open(trainer: Any) -> bool:
    """Its batches are not all used, or what follows its last one is not done."""
    progress = trainer.fit_loop.epoch_progress.current
    return bool(progress.processed < progress.ready)


def epoch_ends(trainer: Any) -> bool:
    """Its hooks are called right now. What follows them is the update of ReduceLROnPlateau alone."""
    progress = trainer.fit_loop.epoch_progress.current
    return bool(progress.processed == progress.completed + 1)


def update_plateaus(trainer: Any, epoch: int) -> None:
    """As Lightning does it behind the hooks of an epoch's end, where checkpoints are saved: it is in none of them."""
    for config in trainer.lr_scheduler_configs:
        metric = trainer.callback_metrics.get(config.monitor)
        due = config.reduce_on_plateau and config.interval == "epoch" and (epoch + 1) % config.frequency == 0
        if due and metric is not None and trainer.lightning_module.automatic_optimization:
            trainer.lightning_module.lr_scheduler_step(config.scheduler, metric)


def batch_has_ended(trainer: Any) -> bool:
    """It was trained on, and what belongs to its end is under way."""
    progress = trainer.fit_loop.epoch_loop.batch_progress.current
    return bool(progress.processed == progress.completed + 1)


def accumulates(trainer: Any) -> bool:
    """This batch's gradients wait for those of the next: they are in no checkpoint."""
    loop = trainer.fit_loop
    return bool(trainer.lightning_module.automatic_optimization and loop._should_accumulate())


def validates_next(trainer: Any) -> bool:
    """Behind this batch. Lightning's own answer takes long for a question that is asked at every batch."""
    loop = trainer.fit_loop
    progress, every = loop.epoch_loop.batch_progress, trainer.val_check_batch
    done = progress.total.ready if trainer.check_val_every_n_epoch is None else progress.current.ready
    if every is not None and done % every and not (progress.is_last_batch or trainer.should_stop):
        return False
    return bool(loop.epoch_loop._should_check_val_fx(loop._data_fetcher))


def loaders(trainer: Any) -> List[Any]:
    """Those of training."""
    combined = getattr(trainer.fit_loop, "_combined_loader", None)
    return list(getattr(combined, "flattened", ()))


def cycles(trainer: Any) -> bool:
    """Whether a shorter loader begins anew beside a longer one."""
    combined = getattr(trainer.fit_loop, "_combined_loader", None)
    return getattr(combined, "_mode", "max_size_cycle") == "max_size_cycle"


def goes_on(trainer: Any) -> bool:
    """No batch was trained on since the checkpoint was loaded."""
    return bool(trainer.fit_loop.epoch_loop.restarting)


def begins_the_data_again(trainer: Any) -> bool:
    """Before 2.6 a fit that goes on at an epoch's end asked the loaders twice for a first pass."""
    return not hasattr(trainer.fit_loop, "is_resuming")


def counts_as_running(trainer: Any) -> None:
    """Lightning skips ReduceLROnPlateau at the end of an epoch that was gone on with, for it has lost the metrics.

    They are given back (see `resume`), so it need not.
    """
    trainer.fit_loop._restarting = False


def mend(loops: Dict[str, Any], *, stepped: bool, validates: bool) -> None:
    """In a checkpoint's loops: a batch that was at its end when it was saved has ended.

    Lightning would do that batch again (before 2.5), or leave out what follows it: the validation that was due, the end of
    the epoch (2.5, 2.6).
    """
    fit = loops["fit_loop"]
    batches = fit["epoch_loop.batch_progress"]
    for part in ("total", "current"):
        batches[part]["completed"] = batches[part]["processed"]
    if stepped:
        fit["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
    if validates:  # as if it had been broken off in its first batch
        begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        fit["epoch_loop.val_loop.batch_progress"].update(total=dict(begun), current=dict(begun), is_last_batch=False)
