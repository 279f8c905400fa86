"""What a broken connection means, by clocks that the test winds."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpurun import errors
from gpurun.errors import ContactLost, HostUnreachable
from gpurun.remote import reconnect
from gpurun.remote.wire import Wire
from gpurun.ssh import diagnose
from gpurun.ssh.openssh import Address, Connection

HOUR = 3600.0


LOST = ContactLost("the connection broke off")
CHANGED = HostUnreachable("the key has changed", code="key_changed")


@pytest.mark.parametrize(
    "error",
    [
        LOST,
        ContactLost("the connection broke off", code="key_unknown"),  # it was let in a moment ago
        HostUnreachable("no route", code="no_route"),
        HostUnreachable("no name", code="no_name"),  # a laptop that is just waking has no resolver yet
        HostUnreachable("late", code="timeout"),
        HostUnreachable("no word for it"),
    ],
)
def test_what_may_mend_itself_is_for_nobody(error: HostUnreachable) -> None:
    assert not reconnect.for_a_person(error)


@pytest.mark.parametrize("code", ["key_unknown", "key_changed", "key_revoked", "not_let_in", "no_ssh", "handshake"])
def test_what_trying_cannot_mend_is_for_a_person(code: str) -> None:
    assert reconnect.for_a_person(HostUnreachable("no", code=code))


def test_each_of_these_words_is_one_of_the_diagnosis() -> None:
    """A word that the diagnosis no longer says would be tried for a day."""
    names = re.findall(r"\berrors\.([A-Z_]+)", Path(diagnose.__file__).read_text())
    assert set(reconnect._FOR_A_PERSON) <= {getattr(errors, name) for name in names}


@pytest.mark.parametrize(("first", "next_one"), [(0.05, 3.0), (1.5, 3.0), (4.0, 8.0), (60.0, 15.0)])
def test_a_new_try_gets_twice_the_time_of_the_first_within_reason(first: float, next_one: float) -> None:
    assert reconnect.connect_within(first) == next_one


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Clock:
    return Clock(1_700_000_000.0)


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


def test_a_second_after_the_other_is_no_sleep(wall: Clock, clock: Clock) -> None:
    pulse = reconnect.Pulse(wall, clock)
    for seconds in (1.0, 1.0, 3.0, 0.1, 5.9):  # a busy laptop is late now and then
        wall.now += seconds
        clock.now += seconds
        assert not pulse.slept()


def test_a_laptop_that_slept_shows_by_the_wall(wall: Clock, clock: Clock) -> None:
    """The monotonic clock of Linux stands still meanwhile."""
    pulse = reconnect.Pulse(wall, clock)
    clock.now += 1
    wall.now += 8 * HOUR
    assert pulse.slept()
    clock.now += 1
    wall.now += 1
    assert not pulse.slept()


def test_a_process_that_was_frozen_shows_by_both(wall: Clock, clock: Clock) -> None:
    pulse = reconnect.Pulse(wall, clock)
    clock.now += 60
    wall.now += 60
    assert pulse.slept()


def test_a_wall_that_is_set_back_hides_nothing_and_shows_nothing(wall: Clock, clock: Clock) -> None:
    pulse = reconnect.Pulse(wall, clock)
    clock.now += 1
    wall.now -= HOUR
    assert not pulse.slept()
    clock.now += 60
    wall.now -= HOUR
    assert pulse.slept()


class WireWithoutSsh(Wire):
    """Ask no `ssh -G` whether a jump host is on the way."""

    def quiet(self) -> Wire:
        return Wire(replace(self.connection, interactive=False), owner=self.owner)


class Host:
    """Says one thing after the other when it is tried, and keeps how it was tried."""

    def __init__(self, clock: Clock, *answers: Exception | str, takes: float = 0.0, interactive: bool = False) -> None:
        self.answers, self.clock, self.takes = list(answers), clock, takes
        connection = Connection("box", Address("box"), interactive=interactive)
        self.wire = WireWithoutSsh(connection, owner="ada")
        self.tried: list[tuple[bool, float | None]] = []  # (may a person be asked, seconds)
        self.paused: list[float] = []
        self.asked = 0

    def attempt(self, wire: Wire, within: float | None) -> str:
        self.tried.append((wire.connection.interactive, within))
        self.clock.now += self.takes
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def reach(self, *, patience: int = 1000) -> str | None:
        def wait(seconds: float) -> bool:
            self.paused.append(seconds)
            self.clock.now += seconds
            return len(self.paused) > patience

        def asks() -> None:
            self.asked += 1

        return reconnect.reach_again(self.wire, self.attempt, within=3.0, asks=asks, wait=wait, clock=self.clock)


def test_each_try_may_take_longer_than_the_one_before_within_reason(clock: Clock) -> None:
    host = Host(clock, *[LOST] * 19, "through")
    host.reach()
    times = [within or 0.0 for _, within in host.tried]
    assert times[0] == 3.0
    assert times == sorted(times)
    assert max(times) == reconnect.LONGEST


@pytest.mark.parametrize("interactive", [True, False])
def test_nobody_is_asked_while_it_may_mend_itself(clock: Clock, *, interactive: bool) -> None:
    host = Host(clock, LOST, LOST, "through", interactive=interactive)
    host.reach()
    assert [asks for asks, _ in host.tried] == [False] * 3


def test_a_person_who_is_there_is_asked_once_with_all_the_time_in_the_world(clock: Clock) -> None:
    host = Host(clock, LOST, CHANGED, CHANGED, "never", interactive=True)
    with pytest.raises(HostUnreachable, match="the key has changed"):
        host.reach()
    assert (host.tried[-1], len(host.tried), host.asked) == ((True, None), 3, 1)


def test_without_a_person_it_is_an_error(clock: Clock) -> None:
    host = Host(clock, LOST, CHANGED)
    with pytest.raises(HostUnreachable, match="the key has changed"):
        host.reach()
    assert host.asked == 0


def test_a_day_without_contact_is_the_end(clock: Clock) -> None:
    host = Host(clock, *[LOST] * 100, takes=HOUR)
    with pytest.raises(ContactLost):
        host.reach()
    assert 24 <= len(host.tried) <= 25


def test_a_tunnel_that_is_closed_meanwhile_is_tried_no_more(clock: Clock) -> None:
    host = Host(clock, *[LOST] * 9)
    assert host.reach(patience=2) is None
    assert len(host.tried) == 3


@pytest.mark.parametrize(("takes", "tries"), [(0.0, 1), (20.0, reconnect.LOOK_CLOSER_EVERY)])
def test_an_ssh_that_ends_by_itself_is_looked_at_closer(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, takes: float, tries: int
) -> None:
    """At once when it was quick to end: it was refused. Now and then when it took its time."""
    monkeypatch.setattr("gpurun.ssh.diagnose.explain", lambda *_: CHANGED)
    host = Host(clock, *[HostUnreachable("ssh said: no")] * 9, takes=takes)
    with pytest.raises(HostUnreachable, match="the key has changed"):
        host.reach()
    assert len(host.tried) == tries


class Stream:
    """Says something each time that it is spoken to, as long as it lives."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.heard = clock, clock()
        self.is_cut = False
        self.lives = True

    def speak(self, woken: bool) -> None:
        if self.lives:
            self.heard = self.clock()

    def cut(self) -> None:
        self.is_cut = True


def watch(stream: Stream, seconds: float, **more: Any) -> None:
    """Watch the stream for so many seconds of its clock, or until it is cut."""
    end = stream.clock() + seconds

    def wait(pause: float) -> bool:
        stream.clock.now += pause
        return stream.clock() > end

    with reconnect.Vigil(stream, clock=stream.clock, wait=wait, **more):
        pass  # leaving waits for its end


def test_a_stream_that_speaks_is_left_alone_and_a_silent_one_is_cut(clock: Clock) -> None:
    stream = Stream(clock)
    watch(stream, 3 * reconnect.SILENT, speak=stream.speak)
    assert not stream.is_cut
    stream.lives = False
    watch(stream, reconnect.SILENT - 1, speak=stream.speak)
    assert not stream.is_cut
    watch(stream, 3, speak=stream.speak)
    assert stream.is_cut


def test_bytes_on_another_way_are_a_sign_of_life(clock: Clock) -> None:
    """A large download leaves the stream no room to speak."""
    stream = Stream(clock)
    watch(stream, 3 * reconnect.SILENT, traffic=clock)
    assert not stream.is_cut


def test_a_laptop_that_woke_does_not_wait_for_long(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    slept = iter([True, *[False] * 100])
    monkeypatch.setattr(reconnect.Pulse, "slept", lambda _: next(slept))
    dead, told, began = Stream(clock), list[bool](), clock()
    watch(dead, 3 * reconnect.SILENT, speak=told.append)
    assert dead.is_cut
    assert clock() - began < reconnect.SILENT
    assert told[:2] == [True, False]


def test_watching_ends_with_the_stream(clock: Clock) -> None:
    before = threading.active_count()
    with reconnect.Vigil(Stream(clock)):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
