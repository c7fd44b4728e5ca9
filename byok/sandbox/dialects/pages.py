"""Pages that a reverse proxy answers with (nginx 1.22.1, as seen when it was run)."""

from __future__ import annotations

from http import HTTPStatus

from starlette.responses import Response

_WORDS = {413: "Request Entity Too Large", 503: "Service Temporarily Unavailable", 504: "Gateway Time-out"}


def page(status: int, headers: dict[str, str] | None = None) -> Response:
    """The page of a status."""
    title = f"{status} {_WORDS.get(status) or HTTPStatus(status).phrase}"
    lines = (
        "<html>",
        f"<head><title>{title}</title></head>",
        "<body>",
        f"<center><h1>{title}</h1></center>",
        "<hr><center>nginx/1.22.1</center>",
        "</body>",
        "</html>",
    )
    return Response("".join(f"{line}\r\n" for line in lines), status_code=status, headers=headers, media_type="text/html")


def plain_404() -> Response:
    """The 404 page of a Flask application."""
    lines = ("<!doctype html>", "<html lang=en>", "<title>404 Not Found</title>", "<h1>Not Found</h1>", "<p>The URL was not found.</p>")
    return Response("".join(f"{line}\n" for line in lines), status_code=404, media_type="text/html")
