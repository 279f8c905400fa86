"""The responses that a listener sends itself, read by a real client."""

from __future__ import annotations

import io
from http.client import HTTPResponse
from typing import Any, cast

import pytest

from gpurun.tunnel import pages


class Wire:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def read(data: bytes) -> tuple[HTTPResponse, str]:
    response = HTTPResponse(cast(Any, Wire(data)))
    response.begin()
    body = response.read()
    assert data.endswith(b"\r\n\r\n" + body), "nothing follows the body"
    return response, body.decode()


ALL = [
    pages.waiting("Jupyter of digits", "box"),
    pages.unavailable("Jupyter of digits", "box"),
    pages.refused("403 Forbidden", "a page of http://evil.example may not use this tunnel"),
]


@pytest.mark.parametrize("data", ALL)
def test_each_response_is_complete_and_not_cached(data: bytes) -> None:
    response, _ = read(data)
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Connection"] == "close"
    assert [name for name in response.headers if name.startswith("Access-Control")] == []


def test_waiting_page_names_the_service_and_reloads() -> None:
    response, text = read(pages.waiting("Jupyter of digits", "box"))
    assert (response.status, response.headers["Refresh"]) == (503, "2")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<h1>Waiting for Jupyter of digits on box</h1>" in text
    assert "http" not in text.replace("<!doctype html>", ""), "it loads nothing from anywhere"


def test_unavailable_response_is_a_line_with_retry_after() -> None:
    response, text = read(pages.unavailable("port 8080 of train-7f3k", "box"))
    assert (response.status, response.headers["Retry-After"]) == (503, "2")
    assert text == "port 8080 of train-7f3k on box does not answer\n"


def test_refused_response_has_the_reason() -> None:
    response, text = read(pages.refused("403 Forbidden", "no"))
    assert (response.status, response.headers["Content-Type"]) == (403, "text/plain; charset=utf-8")
    assert text == "gpurun: no\n"


@pytest.mark.parametrize("name", ["<script>x</script>", "a & b", 'it\'s "q"', "größe", "{host}", "%s"])
def test_names_are_escaped(name: str) -> None:
    _, text = read(pages.waiting(f"TensorBoard of {name}", name))
    assert "<script>" not in text
    _, text = read(pages.unavailable(name, "box"))
    assert text.startswith(name)
