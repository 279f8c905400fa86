"""Addresses that lead on once."""

from __future__ import annotations

import http.client
import os

import pytest

from gpurun.tunnel import once
from tests.unit.tunnel.test_door import Place, place, web

__all__ = ["place"]

SECRET = "lab?token=0123456789abcdef"


def ask(place: Place, path: str, method: str = "GET", **fields: str) -> tuple[int, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", place.port)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in fields.items()})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers["location"]


def test_it_leads_to_the_page_once(place: Place) -> None:
    address = place.doors.once.address(SECRET)
    assert "token" not in address
    assert ask(place, address) == (303, "/" + SECRET)
    assert ask(place, address) == (410, None)


def test_it_is_good_for_a_short_time(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "GOOD_FOR", -1.0)
    assert ask(place, place.doors.once.address(SECRET)) == (410, None)


def test_a_guess_and_a_look_spend_nothing(place: Place) -> None:
    address = place.doors.once.address(SECRET)
    assert ask(place, once.BEGINS + "guess") == (410, None)
    assert ask(place, address, "HEAD") == (403, None)
    assert ask(place, address, sec_fetch_site="cross-site") == (403, None), "a page of somebody else"
    assert ask(place, address) == (303, "/" + SECRET)


def test_it_leads_on_over_a_connection_that_the_browser_still_had(place: Place) -> None:
    service = place.serve(web)
    connection = http.client.HTTPConnection("127.0.0.1", place.port)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"hi"
    connection.request("GET", place.doors.once.address(SECRET))
    assert connection.getresponse().headers["location"] == "/" + SECRET
    connection.close()
    assert len(service.connections) == 1


def test_another_user_who_sees_it_gets_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    address = place.doors.once.address(SECRET)
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)  # so we are another one than the door's
    assert ask(place, address) == (403, None)
    monkeypatch.undo()
    assert ask(place, address) == (303, "/" + SECRET), "and spends nothing"
