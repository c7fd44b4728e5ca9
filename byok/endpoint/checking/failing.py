"""Facts 14 to 22: the bodies of errors, and what they tell for a ticket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from byok.endpoint.bodies import is_html, read_error
from byok.endpoint.checking.look import Look
from byok.endpoint.checking.verdict import ENVELOPE, Case, Verdict, bad, good, numbers, unseen
from byok.endpoint.errors import BadRequest
from byok.endpoint.wire import REQUEST_ID_HEADERS

Shape = Literal["object", "text", "detail text", "detail list", "detail object", "message", "page", "empty", "plain", "other"]

_ABOUT_A_PARAMETER = frozenset({"temperature", "unknown_parameter"})
_SHAPES: dict[int, tuple[Shape, str]] = {
    15: ("text", "error is a text"),
    16: ("detail text", "detail is a text"),
    17: ("detail list", "detail is a list of problems"),
    18: ("detail object", "detail is an object"),
    19: ("message", "a message stands alone"),
}


def shape_of(look: Look) -> Shape:
    """The shape of an error's body."""
    assert look.reply is not None
    if is_html(look.reply):
        return "page"
    if not look.reply.body.strip():
        return "empty"
    value = look.value[0] if isinstance(look.value, list) and look.value else look.value
    if not isinstance(value, dict):
        return "plain"
    error, detail = value.get("error"), value.get("detail")
    if isinstance(error, dict):
        return "object"
    if isinstance(error, str):
        return "text"
    if isinstance(detail, str):
        return "detail text"
    if isinstance(detail, list):
        return "detail list"
    if isinstance(detail, dict):
        return "detail object"
    return "message" if isinstance(value.get("message"), str) else "other"


def _loss(look: Look) -> str | None:
    """What a program cannot tell from an error; None when nothing is lost."""
    assert look.reply is not None
    if not read_error(look.reply).message.strip():
        return "without a message"
    if look.ask in _ABOUT_A_PARAMETER and isinstance(look.error, BadRequest) and look.error.parameter is None:
        return "which parameter is wrong is not told"
    return None


def _unlabelled(look: Look) -> bool:
    """Whether JSON goes under another label."""
    return look.value is not None and "json" not in look.headers.get("content-type", "").lower()


def _judged(case: Case, looks: list[Look], what: str) -> Verdict:
    lost = [(look, loss) for look in looks if (loss := _loss(look)) is not None]
    if lost:
        look, loss = lost[0]
        return bad(f"{what}, {loss}: {case.outcome(look)} ({numbers([look])})", ENVELOPE, *(one for one, _ in lost))
    return good(f"{what} ({numbers(looks)})", *looks)


def error_object(case: Case) -> Verdict:
    """14: the reference's error object."""
    found = [look for look in case.seen.errors if shape_of(look) == "object"]
    if not found:
        return unseen("no error came in this shape" if case.seen.errors else "no request was refused")
    numeric = [look for look in found if isinstance(look.value, dict) and isinstance(look.value["error"].get("code"), int)]
    told = f"an error object whose code is a number, where the reference has a name; read all the same ({numbers(numeric)})"
    return _judged(case, found, told if numeric else "an error object, as in the reference")


def _of_shape(number: int) -> Callable[[Case], Verdict]:
    shape, what = _SHAPES[number]

    def judged(case: Case) -> Verdict:
        found = [look for look in case.seen.errors if shape_of(look) == shape or (shape == "message" and _unlabelled(look))]
        if not found:
            return unseen("no error came in this shape" if case.seen.errors else "no request was refused")
        labels = [look for look in found if _unlabelled(look)] if shape == "message" else []
        said = f"JSON labelled {case.quote(labels[0].headers.get('content-type', 'nothing'))}" if labels else what
        return _judged(case, found, f"{said}, where the reference has an error object")

    return judged


def no_json(case: Case) -> Verdict:
    """20: pages and empty bodies."""
    errors = case.seen.errors
    if not errors:
        return unseen("no request was refused")
    pages = [look for look in errors if shape_of(look) in ("page", "empty")]
    if pages:
        what = "a web page" if shape_of(pages[0]) == "page" else "an empty body"
        return bad(f"{what}, where JSON belongs: {case.outcome(pages[0])} ({numbers(pages)})", ENVELOPE, *pages)
    plain = [look for look in errors if shape_of(look) in ("plain", "other")]
    if plain:
        return good(f"plain text or other JSON, where the reference has an error object; its status is enough ({numbers(plain)})", *plain)
    return good(f"all {len(errors)} errors are JSON")


def success(case: Case) -> Verdict:
    """21: a 200 is an answer."""
    fine = [look for look in case.seen.looks if look.good]
    if not fine:
        return unseen("there was no success")
    wrong = [look for look in fine if look.ask == "no_route" or (look.error is not None and look.error.code != "response_truncated")]
    if wrong:
        look = wrong[0]
        said = case.outcome(look) if look.error is not None else "a route that does not exist is answered"
        return bad(f"HTTP {look.status}: {said} ({numbers(wrong)})", "answer what fails with a status of 4xx or 5xx", *wrong)
    return good(f"all {len(fine)} successes hold what they should")


def request_ids(case: Case) -> Verdict:
    """22: an id for tickets."""
    asked = [look for look in case.seen.looks if look.reply is not None and look.method == "POST"]
    if not asked:
        return unseen("there was no reply of chat")
    without = [look for look in asked if look.request_id is None]
    if without:
        kinds = (
            "no reply has one" if len(without) == len(asked) else f"{len(without)} of {len(asked)} replies have none ({numbers(without)})"
        )
        return bad(f"{kinds}: a ticket cannot name them", "send x-request-id with every reply, errors too", *without)
    name = next((name for name in REQUEST_ID_HEADERS if asked[0].headers.get(name)), None)
    if name == "x-request-id":
        return good("every reply of chat and embeddings has x-request-id, as in the reference", asked[0])
    return good(f"in {name or 'the body'}, where the reference has x-request-id; read all the same", asked[0])


FACTS = {14: error_object, **{number: _of_shape(number) for number in _SHAPES}, 20: no_json, 21: success, 22: request_ids}
