"""The many shapes of an error body."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any

from byok.endpoint.wire import BadJson, Reply, decode_json, text_or_none, whole


@dataclass(frozen=True)
class ErrorBody:
    """What a server says about an error, whatever shape it chose; empty strings and None where it says nothing.

    Attributes:
        message: For a person, as sent.
        code: Machine name (a string; a number is kept as its digits).
        kind: The `type` member.
        parameter: Name of the request parameter that it is about.
        is_json: Whether the body was JSON of a known shape.
        is_html: Whether the body was a page.
        request_id: Id inside the body.
    """

    message: str = ""
    code: str | None = None
    kind: str | None = None
    parameter: str | None = None
    is_json: bool = False
    is_html: bool = False
    request_id: str | None = None


def is_html(reply: Reply) -> bool:
    """Whether the body is a page, by its label or its first characters; nothing at all is none."""
    start = reply.body[:256].lstrip().lower()
    labelled = "text/html" in reply.headers.get("content-type", "").lower()
    if start.startswith((b"{", b"[")):
        return False  # JSON under the label that some frameworks put on everything
    return bool(start) and (labelled or start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")))


def read_error(reply: Reply) -> ErrorBody:
    """What an error reply says. Labels are not trusted: JSON is often sent as text/plain. Never raises."""
    if is_html(reply):
        return ErrorBody(message=_page_text(reply.body), is_html=True)
    try:
        value = decode_json(reply.body)
    except BadJson:
        return ErrorBody(message=whole(reply.body[:2000].decode("utf-8", "replace")))
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, str):
        return ErrorBody(message=value)
    return _from_object(value) if isinstance(value, dict) else ErrorBody()


def _from_object(value: dict[str, Any]) -> ErrorBody:
    request_id = text_or_none(value.get("request_id"))
    said = next((value[name] for name in ("error", "detail") if value.get(name)), None)
    if isinstance(said, dict) and set(said) == {"detail"}:
        said = said["detail"]  # a gateway's detail around the upstream's own (MLflow, run for real)
    if isinstance(said, list):
        return _from_list(said, request_id)
    if isinstance(said, str):
        # {"error": "...", "error_type": "validation"}: TGI and its kin.
        said = {
            "message": said,
            "type": value.get("error_type") or value.get("type"),
            "code": value.get("code"),
            "param": value.get("param"),
        }
    if said is None and "message" in value:
        said = value
    if not isinstance(said, dict):
        return ErrorBody(is_json=True, request_id=request_id)
    message = next((said[name] for name in ("message", "msg", "detail", "error") if isinstance(said.get(name), str)), "")
    return ErrorBody(
        message=whole(message),
        code=text_or_none(said.get("code")) or text_or_none(said.get("error_code")),
        kind=text_or_none(said.get("type")),
        # FastAPI's place of the parameter, without the word that all have in common (vLLM, run for real).
        parameter=(text_or_none(said.get("param")) or "").removeprefix("body.") or None,
        is_json=True,
        request_id=request_id or text_or_none(said.get("request_id")),
    )


def _from_list(entries: list[Any], request_id: str | None) -> ErrorBody:
    """FastAPI's 422: one entry per problem, or per branch of a union."""
    messages: list[str] = []
    places: list[str] = []
    for entry in entries[:10]:
        if not isinstance(entry, dict):
            continue
        loc = entry.get("loc")
        place = ".".join(str(part) for part in loc if part != "body") if isinstance(loc, list) else ""
        messages.append(f"{place}: {entry.get('msg', '')}" if place else str(entry.get("msg", "")))
        places.append(place)
    named = next((place for place in places if place), None)
    return ErrorBody(
        message=whole("; ".join(dict.fromkeys(messages))),
        parameter=named and whole(named),
        kind="validation",
        is_json=True,
        request_id=request_id,
    )


def _page_text(body: bytes) -> str:
    text = body[:8192].decode("utf-8", "replace")
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    if title and title[1].strip():
        return html.unescape(title[1].strip())
    text = re.sub(r"(?is)<(script|style)\b.*?(</\1>|\Z)", " ", text)
    return html.unescape(re.sub(r"<[^>]*>", " ", text))
