"""Questions to a host's agent: one JSON document on stdin, one answer behind a nonce line, then frames.

A host that has no agent of this version gets it on the way: the second question carries the archive and goes on
in the same exec. The wire is described in docs/design.md.
"""

from __future__ import annotations

import getpass
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any, Generic, Literal, TypeVar, Unpack, cast, overload

from gpurun import process
from gpurun.agent import vocabulary as words
from gpurun.errors import (
    MALFORMED,
    NO_ANSWER,
    NO_PYTHON,
    SLOW,
    UNSTEADY,
    ContactLost,
    GpurunError,
    HostError,
    HostUnreachable,
)
from gpurun.process import Process, TimedOut
from gpurun.remote import answers, bundle
from gpurun.remote.questions import Limits, Questions
from gpurun.ssh.openssh import CONNECT_TIMEOUT, CONNECTION_FAILED, PASS_IN, Address, Connection, has_terminal
from gpurun.ssh.pipe import Patience, Pipe, TooLong

if TYPE_CHECKING:
    from gpurun.agent.schema import answers as a
    from gpurun.agent.schema import requests as q
    from gpurun.agent.schema.host import ErrorDocument
    from gpurun.agent.schema.run import RunRecord
    from gpurun.agent.schema.wire import Empty, FrameHead, Made, Request
    from gpurun.config.hosts import HostProfile

ANSWER_IN = 15.0  # seconds that a question may take, once we are connected
ANSWER_COMES_IN = 600.0  # seconds from the first byte of an answer to its end: some are long, and some lines slow
SILENCE = 20.0  # seconds; a stream says something at least every 5
NOISE = 4 << 20  # bytes that a shell's start-up files may print
BEATS = 100  # frames that say nothing new, one behind the other; beside them a host may beat twice a second
STANDSTILL = 60.0  # seconds in which a stream that is to end by itself may say nothing new
NOT_FOUND = 127  # the shell's word for a missing command

Answer = TypeVar("Answer")  # of agent/schema/answers.py
End = TypeVar("End")  # what a stream says last


def connect(
    host: HostProfile,
    *,
    interactive: bool | None = None,
    connect_timeout: int = CONNECT_TIMEOUT,
    forward_agent: bool = False,
) -> Wire:
    """A wire to a host; nothing is opened before the first question. `interactive=False`: never ask a person."""
    connection = Connection(
        host.name,
        host.address or Address(host.name),
        interactive=has_terminal() if interactive is None else interactive,
        forward_agent=forward_agent,
        connect_timeout=connect_timeout,
    )
    return Wire(connection, root=host.root, python=host.python, engine=host.engine)


@dataclass(frozen=True)
class Frame(Generic[End]):
    """A piece of a stream: `data` of `stream` at `offset`, or a new `state` of a run, or the `end`."""

    stream: str = ""  # "log" or "prepare"
    offset: int = 0  # of the first byte of `data`
    data: bytes = b""
    state: RunRecord | None = None
    end: End | None = None
    attempt: int = 1  # of the run, whose `data` it is


class StreamLimits(Limits, total=False):
    listens: bool


class Stream(Generic[Answer, End]):
    """A streaming verb's first answer, and the frames that follow. Close it, or use it in a `with`."""

    def __init__(
        self,
        answer: Answer,
        exchange: _Exchange,
        name: str,
        verb: str,
        request: Request,
    ) -> None:
        self.answer = answer
        self._verb, self._request = verb, request
        self._progress = _Progress(ends=verb == "logs" and not self._request.get("follow"))
        self.heard = time.monotonic()  # when the host last said something
        self.noise = exchange.noise  # what a start-up file of the host's shell printed first
        self._exchange = exchange
        self._name = name

    def __iter__(self) -> Iterator[Frame[End]]:
        """The frames; the last one has `end`.

        Raises ContactLost when they stop or fall silent before it, HostError when the host says no, or what comes are no frames.
        """
        while True:
            frame = self._next()
            if frame is not None:
                yield frame
                if frame.end is not None:
                    return

    def _next(self) -> Frame[End] | None:
        patience = Patience(SILENCE)
        try:
            line = self._exchange.pipe.read_until(b"\n", patience, most=answers.LONGEST_HEAD)
            head = None if line is None else answers.frame(self._verb, self._request, line)
            data = self._exchange.pipe.read_exactly(head.get("size", 0), patience) if head is not None else None
        except TimedOut:
            head = data = None
        except answers.Malformed as error:
            raise malformed(self._name, self._verb, str(error)) from error
        except TooLong:
            raise malformed(self._name, self._verb, "a frame has no end") from None
        if head is None or data is None:
            raise lost(self._name, "the connection broke off")
        self.heard = time.monotonic()
        if (complaint := self._progress.error_text(head, data, self.heard)) is not None:
            raise malformed(self._name, self._verb, complaint)
        if "beat" in head:
            return None
        if "error" in head:
            raise refusal(head["error"], self._name)
        text, attempt = (head.get("stream", ""), head.get("offset", 0), data), head.get("attempt", 1)
        return Frame(*text, head.get("state"), cast(End | None, head.get("end")), attempt)

    def say(self, line: bytes = b"\n") -> None:
        """A line to a verb that goes on listening."""
        self._exchange.pipe.write(line, more=True)

    def cut(self) -> None:
        """Break the connection off; whoever reads the frames, in another thread, learns of it."""
        self._exchange.process.kill()

    def close(self) -> None:
        process.kill(self._exchange.process)

    def __enter__(self) -> Stream[Answer, End]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Progress:
    """Whether a stream still says something new. Beats for ever are well where a job may be silent; a flood of them never is."""

    def __init__(self, *, ends: bool) -> None:
        self._ends = ends
        self._last: Any = None
        self._idle = 0
        self._since = time.monotonic()

    def error_text(self, head: FrameHead, data: bytes, now: float) -> str | None:
        news = head.get("state"), head.get("end")
        if data or (any(news) and news != self._last):
            self._idle, self._since, self._last = 0, now, news
            return None
        self._idle += 1
        if self._idle > BEATS + 2 * (now - self._since):
            return "it sends nothing but signs of life, without a pause"
        if self._ends and now > self._since + STANDSTILL:
            return f"nothing new came for {STANDSTILL:g} s, and it did not end"
        return None


@dataclass(frozen=True)
class Wire(Questions):
    """The agent of one host. `root`, `python` and `engine` are the profile's, None where it is silent."""

    connection: Connection
    root: str | None = None
    python: str | None = None
    engine: Sequence[str] | None = None
    owner: str = field(default_factory=getpass.getuser)
    _begun: dict[str, _Begun] = field(default_factory=dict, repr=False, compare=False)  # verb -> its process

    @property
    def host(self) -> str:
        return self.connection.name

    def quiet(self) -> Wire:
        """The same, asking nobody for a password."""
        from gpurun.ssh import jump

        return replace(self, connection=jump.without_prompts(self.connection))

    def let_go(self, *, within: float = PASS_IN) -> None:
        """Drop the shared connection if nothing gets through it `within` seconds; what still runs over it is not harmed."""
        if self.connection.is_warm and not self.connection.passes(within=within):
            self.connection.drop()

    @contextmanager
    def begin(self, verb: str) -> Iterator[None]:
        """Start ssh and the agent for the next question `verb`, which the block asks once its request is made.

        Only over a warm connection: elsewhere ssh may ask a person for a password meanwhile.
        """
        if self.connection.is_warm:
            errors = process.scratch()
            command = bundle.question_command(self.python, self.root, bundle.current().hash, verb)
            self._begun[verb] = _Begun(self.connection.popen(command, stderr=errors), errors)
        try:
            yield
        finally:
            if (begun := self._begun.pop(verb, None)) is not None:  # the block failed before it asked
                process.kill(begun.process)

    def _ask(
        self,
        verb: str,
        request: Request,
        *,
        timeout: float = ANSWER_IN,
        within: float | None = None,
        idempotent: bool = True,
    ) -> answers.Document:
        question = _Question(self, verb, request)
        exchange = question.put(timeout, within, again=idempotent)
        process.finish(exchange.process, within=2)  # the answer is here, whatever holds the channel
        return question.read(exchange.answer)

    # fmt: off
    @overload
    def stream(self, verb: Literal["start"], request: q.StartRequest, **limits: Unpack[StreamLimits]) -> Stream[a.RunAnswer, RunRecord]: ...
    @overload
    def stream(self, verb: Literal["resume"], request: q.ResumeRequest, **limits: Unpack[StreamLimits]) -> Stream[a.RunAnswer, RunRecord]: ...
    @overload
    def stream(self, verb: Literal["logs"], request: q.LogsRequest, **limits: Unpack[StreamLimits]) -> Stream[a.RunAnswer, RunRecord]: ...
    @overload
    def stream(self, verb: Literal["check"], request: q.CheckRequest, **limits: Unpack[StreamLimits]) -> Stream[a.CheckAnswer, Empty]: ...
    @overload
    def stream(self, verb: Literal["warm"], request: q.WarmRequest, **limits: Unpack[StreamLimits]) -> Stream[a.WarmAnswer, Made]: ...
    @overload
    def stream(self, verb: Literal["tunnel"], request: q.TunnelRequest, **limits: Unpack[StreamLimits]) -> Stream[a.TunnelAnswer, RunRecord]: ...
    # fmt: on
    def stream(
        self,
        verb: str,
        request: Request,
        *,
        timeout: float = ANSWER_IN,
        within: float | None = None,
        listens: bool = False,
    ) -> Stream[Any, Any]:
        """Ask a streaming `verb`. Raises and is bounded as `ask`; see `Stream` for what iterating raises.

        One that `listens` hears what `Stream.say` tells it.
        """
        question = _Question(self, verb, request, listens=listens)
        exchange = question.put(timeout, within, again=True)
        try:
            return Stream(question.read(exchange.answer), exchange, self.host, verb, request)
        except BaseException:
            process.kill(exchange.process)
            raise


def lost(name: str, what: str, code: str = "") -> ContactLost:
    return ContactLost(what, f"try again; `gpurun host check {name}` looks closer", where=name, code=code)


def refusal(error: ErrorDocument, host: str) -> HostError:
    """What the agent of `host` says it cannot do, as an error."""
    where = "\n".join(part for part in (host, error["where"]) if part)
    return HostError(error["what"], error["next"], where=where, exit_code=error["exit"], code=error["code"])


def malformed(name: str, verb: str, what: str) -> HostError:
    """The one error for an answer that is not what it should be, whatever it is."""
    return HostError(
        f"{name} gave an answer to `{verb}` that is not what it should be: {what}",
        f"try again; if it stays so, look at what answers there: gpurun host check {name}",
        where=name,
        code=MALFORMED,
    )


@dataclass(frozen=True)
class _Begun:
    """An agent that waits for its question, and what ssh says on stderr."""

    process: Process
    errors: IO[bytes]


@dataclass(frozen=True)
class _Exchange:
    process: Process
    pipe: Pipe
    noise: bytes
    answer: bytes


class _Silence(Exception):
    """The remote command ended and no agent had answered."""

    def __init__(self, code: int, said: str, noise: bytes) -> None:
        super().__init__(code)
        self.code, self.said, self.noise = code, said, noise


class _Question:
    """One question, asked once or more under the same nonce."""

    def __init__(self, wire: Wire, verb: str, request: Request, *, listens: bool = False) -> None:
        self.wire, self.verb, self.request, self.listens = wire, verb, request, listens
        self.nonce = secrets.token_hex(16)
        self.bundle = bundle.current()
        self.command = bundle.question_command(wire.python, wire.root, self.bundle.hash, verb)
        self.archive: bytes | None = None
        self.document: bytes | None = None
        self.begun = wire._begun.pop(verb, None)

    def put(self, timeout: float, within: float | None, *, again: bool) -> _Exchange:
        """Ask until there is an answer, or a reason to give up."""
        patience = None if within is None else Patience(within)
        for tries_left in (2, 1, 0):
            warm = self.wire.connection.is_warm or self.begun is not None
            try:
                return self._put(timeout, patience)
            except TimedOut:
                failure = self._late(within or timeout, bounded=within is not None)
            except _Silence as silence:
                failure = self._explain(silence, warm=warm, bounded=within is not None)
            # A warm connection may have died long ago; and what broke in the making may hold the next time.
            worth_it = isinstance(failure, ContactLost) and (warm or failure.code == UNSTEADY) and failure.code != SLOW
            if not (again and worth_it and within is None and tries_left):
                raise failure
        raise AssertionError("the last try returns or raises")

    def _late(self, seconds: float, *, bounded: bool) -> GpurunError:
        """No answer in time. A connection that is dead is let go; a host that is slow keeps it: a new one may cost a
        person's password."""
        connection = self.wire.connection
        what = f"no answer within {seconds:g} s"
        if not bounded and connection.passes():
            busy = ", though the connection stands: the host is busy, or one of its disks hangs"
            return lost(connection.name, what + busy, code=SLOW)
        if not bounded:
            connection.drop()
        return lost(connection.name, what)

    def _put(self, timeout: float, patience: Patience | None) -> _Exchange:
        """Ask; when the agent is not there, once more with the agent."""
        try:
            return self._once(patience or self.wire.connection.patience(timeout))
        except _Silence as silence:
            if silence.code in (CONNECTION_FAILED, NOT_FOUND) or silence.code < 0 or self.archive is not None:
                raise
        self.archive = self.bundle.read()
        wire = self.wire
        self.command = bundle.bootstrap_command(wire.python, wire.root, self.bundle.hash, self.verb, len(self.archive))
        return self._once(patience or self.wire.connection.patience(timeout))

    def _once(self, patience: Patience) -> _Exchange:
        begun, self.begun = self.begun or self._begin(patience), None
        connection, running = self.wire.connection, begun.process
        with begun.errors as errors:
            try:
                pipe = Pipe(running)
                pipe.write(self._stdin(), more=self.listens)
                noise = pipe.read_until(self.nonce.encode() + b"\n", patience, most=NOISE)
                patience.in_all = ANSWER_COMES_IN  # whoever printed endless noise has not answered
                answer = None if noise is None else pipe.read_until(b"\n", patience, most=answers.LONGEST_ANSWER)
                if answer is not None:
                    return _Exchange(running, pipe, (noise or b"").strip(b"\n"), answer)
                code = running.wait()
            except TooLong:
                process.kill(running)
                raise malformed(connection.name, self.verb, "it has no end") from None
            except BaseException:
                process.kill(running)
                raise
            process.kill(running)
            errors.seek(0)
            raise _Silence(code, process.last_line(errors.read()), noise or pipe.unread)

    def _begin(self, patience: Patience) -> _Begun:
        connection = self.wire.connection
        if not patience.running and not connection.log_in():
            raise _Silence(CONNECTION_FAILED, "", b"")
        errors = process.scratch()
        return _Begun(connection.popen(self.command, stderr=errors), errors)

    def _stdin(self) -> bytes:
        if self.document is None:
            ours = {
                "nonce": self.nonce,
                "protocol": words.PROTOCOL,
                "root": self.wire.root,
                "owner": self.wire.owner,
                "engine": None if self.wire.engine is None else list(self.wire.engine),
            }
            self.document = json.dumps({**self.request, **ours}).encode() + b"\n"
        if self.archive is None:
            return self.document
        return repr(bundle.loader()).encode() + b"\n" + self.archive + self.document

    def read(self, answer: bytes) -> answers.Document:
        """The answer. Raises HostError: the agent's own no, and `malformed` for what is no answer."""
        try:
            document = answers.parse(answer)
            if document.get("ok") is True:
                return answers.check(self.verb, self.request, document.get("answer"))
            no = answers.error(document.get("error"))
        except answers.Malformed as wrong:
            raise malformed(self.wire.host, self.verb, str(wrong)) from wrong
        raise refusal(no, self.wire.host)

    def _explain(self, silence: _Silence, *, warm: bool, bounded: bool) -> GpurunError:
        connection, python = self.wire.connection, self.wire.python or "python3"
        name = connection.name
        if silence.code == CONNECTION_FAILED or silence.code < 0:
            if warm or connection.is_up():
                return lost(name, silence.said or "the connection broke off")
            if bounded:
                return HostUnreachable(silence.said or "no connection", f"gpurun host check {name}", where=name)
            from gpurun.ssh import diagnose  # Paramiko is slow to load

            return diagnose.explain(connection, silence.said)
        if silence.code == NOT_FOUND:
            return HostError(
                f"there is no `{python}` on {name}",
                "install Python 3.8 or later there, or name one that is there: "
                f'python = "/path/to/python3" under [hosts.{name}] in hosts.toml',
                where=name,
                code=NO_PYTHON,
            )
        heard = silence.said or process.last_line(silence.noise)
        return HostError(
            f"`{python}` on {name} ended with code {silence.code} and without an answer"
            + (f": {heard}" if heard else ""),
            f"try `ssh {connection.address.host} {python} --version`; a start-up file of the shell there (~/.bashrc) "
            "that ends the shell or reads its input would do this too",
            where=name,
            code=NO_ANSWER,
        )
