"""Build the HTTP responses that a listener sends itself; each one closes the connection."""

from __future__ import annotations

from html import escape

RETRY_AFTER = 2  # seconds
_WAITING = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Waiting for {host}</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 16px/1.5 system-ui, sans-serif; margin: 20vh auto 0; max-width: 34em; padding: 0 1.5em; }}
  h1 {{ font-size: 1.4em; font-weight: 600; }}
  p {{ opacity: .75; }}
  i {{ display: block; height: 3px; border-radius: 2px; background: #5b8def; animation: w 2s ease-in-out infinite alternate; }}
  @keyframes w {{ from {{ width: 4em; }} to {{ width: 100%; }} }}
</style>
</head>
<body>
<h1>Waiting for {what} on {host}</h1>
<i></i>
<p>It does not answer at the moment. This page opens by itself as soon as it does.
<code>gpurun tunnel --list</code> shows the state of the connection.</p>
</body>
</html>
"""


def waiting(what: str, host: str) -> bytes:
    """Return a page for a browser; it reloads itself."""
    page = _WAITING.format(what=escape(what), host=escape(host)).encode()
    return _response("503 Service Unavailable", "text/html; charset=utf-8", page, f"Refresh: {RETRY_AFTER}\r\n")


def unavailable(what: str, host: str) -> bytes:
    """Return a line for a program."""
    text = f"{what} on {host} does not answer\n".encode()
    return _response("503 Service Unavailable", "text/plain; charset=utf-8", text, f"Retry-After: {RETRY_AFTER}\r\n")


def refused(status: str, reason: str) -> bytes:
    return _response(status, "text/plain; charset=utf-8", f"gpurun: {reason}\n".encode())


def redirect(path: str) -> bytes:
    return _response(
        "303 See Other", "text/plain; charset=utf-8", b"", f"Location: {path}\r\nReferrer-Policy: no-referrer\r\n"
    )


def _response(status: str, content_type: str, body: bytes, more_fields: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        f"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n{more_fields}\r\n"
    )
    return head.encode("latin-1", "replace") + body
