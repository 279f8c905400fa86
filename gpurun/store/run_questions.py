"""Ask a host about runs, and store what it answers about them: their records, and what is new of their ledgers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from gpurun.store import checkpoint_store, run_store

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import PsAnswer
    from gpurun.agent.schema.run import RunRecord
    from gpurun.remote.wire import Wire


def ask(wire: Wire, verb: str, request: Mapping[str, Any], runs: Iterable[str], **limits: Any) -> dict[str, Any]:
    """Ask `verb` about `runs` (ids), store the answer, and return it.

    `limits` are those of `Wire.ask`, and so are the errors.
    """
    answer = wire.ask(verb, {**request, **checkpoint_store.question(runs)}, **limits)
    store(answer, wire.host)
    return answer


def list_some(wire: Wire, runs: Iterable[str], **limits: Any) -> PsAnswer:
    """Ask `ps` for these runs alone. The answer's `runs` leaves out those that the host does not have."""
    ids = list(runs)
    return cast("PsAnswer", ask(wire, "ps", {"ids": ids}, ids, **limits))


def store(answer: Mapping[str, Any], host: str, *, only: Callable[[RunRecord], bool] = lambda _: True) -> None:
    """Store what `host` answered: the records that pass `only`, and what is new of the ledgers of runs that are known here."""
    found = answer["runs"] if "runs" in answer else [answer.get("record") or answer["run"]]
    run_store.update([record for record in found if only(record)], host)
    checkpoint_store.update(answer, host)
