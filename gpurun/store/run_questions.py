"""Ask a host about runs, and store what it answers about them: their records, and what is new of their ledgers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from gpurun.store import checkpoint_store, run_store

if TYPE_CHECKING:
    from gpurun.agent.schema import answers as a
    from gpurun.agent.schema import requests as q
    from gpurun.agent.schema.run import RunRecord
    from gpurun.remote.questions import AskLimits
    from gpurun.remote.wire import Wire


# fmt: off
@overload
def ask(wire: Wire, verb: Literal["ps"], request: q.PsRequest, runs: Iterable[str], **limits: Unpack[AskLimits]) -> a.PsAnswer: ...
@overload
def ask(wire: Wire, verb: Literal["status"], request: q.StatusRequest, runs: Iterable[str], **limits: Unpack[AskLimits]) -> a.StatusAnswer: ...
@overload
def ask(wire: Wire, verb: Literal["wait"], request: q.WaitRequest, runs: Iterable[str], **limits: Unpack[AskLimits]) -> a.WaitAnswer: ...
@overload
def ask(wire: Wire, verb: Literal["stop"], request: q.StopRequest, runs: Iterable[str], **limits: Unpack[AskLimits]) -> a.StopAnswer: ...
@overload
def ask(wire: Wire, verb: Literal["unfetched"], request: q.UnfetchedRequest, runs: Iterable[str], **limits: Unpack[AskLimits]) -> a.UnfetchedAnswer: ...
@overload
def ask(wire: Wire, verb: Literal["outputs"], request: q.OutputsRequest, runs: Iterable[str], **limits: Unpack[AskLimits]) -> a.OutputsAnswer: ...
@overload
def ask(wire: Wire, verb: Literal["checkpoint"], request: q.CheckpointRequest, runs: Iterable[str], **limits: Unpack[AskLimits]) -> a.CheckpointAnswer: ...
@overload
def ask(wire: Wire, verb: Literal["migrate"], request: q.MigrateRequest, runs: Iterable[str], **limits: Unpack[AskLimits]) -> a.MigrateAnswer: ...
# fmt: on
def ask(wire: Wire, verb: Any, request: Any, runs: Iterable[str], **limits: Any) -> Any:
    """Ask `verb` about `runs` (ids), store the answer, and return it.

    `limits` are those of `Wire.ask`, and so are the errors.
    """
    asked: Any = wire.ask  # typed by the overloads
    answer = asked(verb, {**request, **checkpoint_store.question(runs)}, **limits)
    store(answer, wire.host)
    return answer


def list_some(wire: Wire, runs: Iterable[str], **limits: Unpack[AskLimits]) -> a.PsAnswer:
    """Ask `ps` for these runs alone. The answer's `runs` leaves out those that the host does not have."""
    ids = list(runs)
    return ask(wire, "ps", {"ids": ids}, ids, **limits)


def store(answer: Mapping[str, Any], host: str, *, only: Callable[[RunRecord], bool] = lambda _: True) -> None:
    """Store what `host` answered: the records that pass `only`, and what is new of the ledgers of runs that are known here."""
    found = answer["runs"] if "runs" in answer else [answer.get("record") or answer["run"]]
    run_store.update([record for record in found if only(record)], host)
    checkpoint_store.update(answer, host)
