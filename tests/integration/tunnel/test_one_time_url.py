"""One-time URLs, opened over a real listener."""

from __future__ import annotations

import http.client
import os

import pytest

from gpurun.tunnel import one_time_url
from tests.integration.tunnel.test_listener import Place, place, serve_page

__all__ = ["place"]

SECRET = "lab?token=0123456789abcdef"


def get(place: Place, path: str, method: str = "GET", **fields: str) -> tuple[int, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", place.port)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in fields.items()})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers["location"]


def test_url_redirects_to_the_page_once(place: Place) -> None:
    url = place.listeners.one_time_urls.create(SECRET)
    assert "token" not in url
    assert get(place, url) == (303, "/" + SECRET)
    assert get(place, url) == (410, None)


def test_expired_url_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_time_url, "VALID_FOR", -1.0)
    assert get(place, place.listeners.one_time_urls.create(SECRET)) == (410, None)


def test_refused_request_does_not_use_up_the_url(place: Place) -> None:
    url = place.listeners.one_time_urls.create(SECRET)
    assert get(place, one_time_url.PATH_PREFIX + "guess") == (410, None)
    assert get(place, url, "HEAD") == (403, None)
    assert get(place, url, sec_fetch_site="cross-site") == (403, None), "a page of another site"
    assert get(place, url) == (303, "/" + SECRET)


def test_url_works_over_an_open_connection_of_the_browser(place: Place) -> None:
    service = place.serve(serve_page)
    connection = http.client.HTTPConnection("127.0.0.1", place.port)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"hi"
    connection.request("GET", place.listeners.one_time_urls.create(SECRET))
    assert connection.getresponse().headers["location"] == "/" + SECRET
    connection.close()
    assert len(service.connections) == 1


def test_url_of_another_user_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    url = place.listeners.one_time_urls.create(SECRET)
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)  # so the client belongs to another user
    assert get(place, url) == (403, None)
    monkeypatch.undo()
    assert get(place, url) == (303, "/" + SECRET), "the refused request did not use it up"
