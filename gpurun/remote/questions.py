"""The questions to a host's agent: for each verb, the type of its request and the type of its answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

if TYPE_CHECKING:
    from gpurun.agent.schema import answers as a
    from gpurun.agent.schema import requests as q
    from gpurun.agent.schema.host import HostFacts


class Limits(TypedDict, total=False):
    """How long a host may take, in seconds."""

    timeout: float  # to answer, once it let us in; default: wire.ANSWER_IN
    within: float | None  # for everything: there is no second try and no diagnosis


class AskLimits(Limits, total=False):
    idempotent: bool  # default: True; the question may be asked once more where a warm connection stays silent


class Questions(ABC):
    """What `Wire` can be asked."""

    # fmt: off
    @overload
    def ask(self, verb: Literal["facts"], request: q.FactsRequest, **limits: Unpack[AskLimits]) -> HostFacts: ...
    @overload
    def ask(self, verb: Literal["prepare"], request: q.PrepareRequest, **limits: Unpack[AskLimits]) -> a.PrepareAnswer: ...
    @overload
    def ask(self, verb: Literal["start"], request: q.StartRequest, **limits: Unpack[AskLimits]) -> a.RunAnswer: ...
    @overload
    def ask(self, verb: Literal["resume"], request: q.ResumeRequest, **limits: Unpack[AskLimits]) -> a.RunAnswer: ...
    @overload
    def ask(self, verb: Literal["ps"], request: q.PsRequest, **limits: Unpack[AskLimits]) -> a.PsAnswer: ...
    @overload
    def ask(self, verb: Literal["status"], request: q.StatusRequest, **limits: Unpack[AskLimits]) -> a.StatusAnswer: ...
    @overload
    def ask(self, verb: Literal["wait"], request: q.WaitRequest, **limits: Unpack[AskLimits]) -> a.WaitAnswer: ...
    @overload
    def ask(self, verb: Literal["stop"], request: q.StopRequest, **limits: Unpack[AskLimits]) -> a.StopAnswer: ...
    @overload
    def ask(self, verb: Literal["rm"], request: q.RmRequest, **limits: Unpack[AskLimits]) -> a.RmAnswer: ...
    @overload
    def ask(self, verb: Literal["unfetched"], request: q.UnfetchedRequest, **limits: Unpack[AskLimits]) -> a.UnfetchedAnswer: ...
    @overload
    def ask(self, verb: Literal["shell"], request: q.ShellRequest, **limits: Unpack[AskLimits]) -> a.ShellAnswer: ...
    @overload
    def ask(self, verb: Literal["outputs"], request: q.OutputsRequest, **limits: Unpack[AskLimits]) -> a.OutputsAnswer: ...
    @overload
    def ask(self, verb: Literal["hash"], request: q.HashRequest, **limits: Unpack[AskLimits]) -> a.HashAnswer: ...
    @overload
    def ask(self, verb: Literal["fetched"], request: q.FetchedRequest, **limits: Unpack[AskLimits]) -> a.FetchedAnswer: ...
    @overload
    def ask(self, verb: Literal["checkpoint"], request: q.CheckpointRequest, **limits: Unpack[AskLimits]) -> a.CheckpointAnswer: ...
    @overload
    def ask(self, verb: Literal["migrate"], request: q.MigrateRequest, **limits: Unpack[AskLimits]) -> a.MigrateAnswer: ...
    @overload
    def ask(self, verb: Literal["data"], request: q.DataRequest, **limits: Unpack[AskLimits]) -> a.DataAnswer: ...
    @overload
    def ask(self, verb: Literal["data_folders"], request: q.DataFoldersRequest, **limits: Unpack[AskLimits]) -> a.DataFoldersAnswer: ...
    @overload
    def ask(self, verb: Literal["leave"], request: q.LeaveRequest, **limits: Unpack[AskLimits]) -> a.LeaveAnswer: ...
    @overload
    def ask(self, verb: Literal["warm"], request: q.WarmRequest, **limits: Unpack[AskLimits]) -> a.WarmAnswer: ...
    # fmt: on
    def ask(self, verb: str, request: Any, **limits: Any) -> Any:
        """Ask `verb` and return its answer. Raises HostError (the agent's own no) and HostUnreachable (255)."""
        return self._ask(verb, request, **limits)

    @abstractmethod
    def _ask(
        self, verb: str, request: Any, *, timeout: float = ..., within: float | None = ..., idempotent: bool = ...
    ) -> Any: ...
