"""Lines in the job's log, and the promise that nothing of ours ever breaks a training."""

import functools
import sys
from typing import Any, Callable, Set, TypeVar

Hook = TypeVar("Hook", bound=Callable[..., Any])
_said: Set[str] = set()


def say(text: str) -> None:
    try:
        print("gpurun: " + text, file=sys.stderr, flush=True)
    except (OSError, ValueError):  # the script closed it
        pass


def say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        say(text)


def give_up(what: str, error: BaseException) -> None:
    """One line a failure, however often it comes again."""
    say_once("%s, for gpurun itself failed: %s: %s; the training goes on" % (what, type(error).__name__, error))


def guarded(what: str) -> Callable[[Hook], Hook]:
    """For a hook: an error of its own ends in one line of the log that says `what` is missing now."""

    def guard(hook: Hook) -> Hook:
        @functools.wraps(hook)
        def safe(*args: Any, **kwargs: Any) -> Any:
            try:
                return hook(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
                give_up(what, error)
                return None

        return safe  # type: ignore[return-value]

    return guard
