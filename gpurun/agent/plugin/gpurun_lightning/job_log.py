"""Print lines into the job's log, and keep errors of the plugin from breaking a training."""

import functools
import sys
from typing import Any, Callable, Set, TypeVar

Hook = TypeVar("Hook", bound=Callable[..., Any])
_printed: Set[str] = set()


def print_line(text: str) -> None:
    try:
        print("gpurun: " + text, file=sys.stderr, flush=True)
    except (OSError, ValueError):  # the script has closed stderr
        pass


def print_once(text: str) -> None:
    if text not in _printed:
        _printed.add(text)
        print_line(text)


def report_failure(what: str, error: BaseException) -> None:
    """Print one line for a failure of the plugin, also when it happens again and again."""
    print_once("%s, because gpurun itself failed: %s: %s; the training continues" % (what, type(error).__name__, error))


def guarded(what: str) -> Callable[[Hook], Hook]:
    """Decorate a hook so that an error in it only prints one line; `what` says what is missing then."""

    def guard(hook: Hook) -> Hook:
        @functools.wraps(hook)
        def safe(*args: Any, **kwargs: Any) -> Any:
            try:
                return hook(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - the training continues after any error
                report_failure(what, error)
                return None

        return safe  # type: ignore[return-value]

    return guard
