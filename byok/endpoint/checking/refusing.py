"""Facts 23 to 31: which status says what."""

from __future__ import annotations

from byok.clock import utcnow
from byok.endpoint.bodies import is_html, read_error
from byok.endpoint.checking.failing import shape_of
from byok.endpoint.checking.look import Look
from byok.endpoint.checking.verdict import Case, Verdict, bad, good, numbers, unanswered, unseen
from byok.endpoint.errors import (
    BadRequest,
    ContextLength,
    CreditExhausted,
    EndpointCold,
    EndpointRateLimited,
    RemoteModelNotFound,
)
from byok.endpoint.limits import read_limits
from byok.endpoint.probing.context import context_in
from byok.endpoint.wire import LONGEST_WAIT_S, retry_after


def context(case: Case) -> Verdict:
    """23: a request that goes beyond the context."""
    look = case.seen.last("huge")
    if look is None:
        return unanswered(case, "huge")
    if look.answer is not None:
        return good("a limit beyond any context is lowered in silence, where the reference refuses it with 400", look)
    error = look.error
    if isinstance(error, ContextLength):
        length = context_in(error.message)
        told = f"; it tells {length} tokens" if length is not None else ""
        if look.status == 400:
            return good(f"refused with HTTP 400 as too long{told}", look)
        return good(f"refused as too long with HTTP {look.status}, where the reference has 400; known by its words or code{told}", look)
    if isinstance(error, BadRequest):
        return good(f"refused, though not as a matter of the context: {case.outcome(look)}", look)
    if look.status is None or look.status in (408, 429, 504):
        return unanswered(case, "huge")
    hint = "refuse with 400 and code context_length_exceeded"
    return bad(f"a limit beyond any context ends otherwise than in a refusal: {case.outcome(look)}", hint, look)


def forbidden(case: Case) -> Verdict:
    """24: 403 is for permissions."""
    found = [look for look in case.seen.looks if look.status == 403]
    if not found:
        return unseen("no reply has status 403")
    wrong = [look for look in found if isinstance(look.error, ContextLength) or look.ask in ("huge", "temperature", "unknown_parameter")]
    if wrong:
        return bad(f"for what is no matter of permission: {case.outcome(wrong[0])}", "use 400 for what is wrong with a request", *wrong)
    keys = [look for look in found if look.ask in ("wrong_key", "models_open")]
    if keys:
        return bad(
            f"for a key that is unknown or missing: {case.outcome(keys[0])} ({numbers(keys)})",
            "use 401 for it, as the reference does",
            *keys,
        )
    return good(f"not taken for a bad key: {case.outcome(found[0])}", *found)


def account(case: Case) -> Verdict:
    """25: 402 and 412."""
    found = [look for look in case.seen.looks if isinstance(look.error, CreditExhausted)]
    if not found:
        return unseen("no reply speaks of the account")
    return bad(f"the account cannot be used, so little else was seen: {case.outcome(found[0])}", "see the provider's billing page", *found)


def unknown_model(case: Case) -> Verdict:
    """26: a model that does not exist."""
    look = case.seen.last("unknown_model")
    if look is None:
        return unanswered(case, "unknown_model")
    hint = "refuse with 404 and code model_not_found"
    if look.answer is not None:
        return bad("a model that does not exist answers: another one stands in for it in silence", hint, look)
    if isinstance(look.error, RemoteModelNotFound):
        code = look.error.fields.get("remote_code")
        told = f"HTTP {look.status}{f', code {code}' if code else ''}"
        if look.status == 404:
            return good(told, look)
        return good(f"{told}, where the reference has 404; known by its code", look)
    if look.status is None or look.status in (408, 429, 502, 503, 504):
        return unanswered(case, "unknown_model")
    return bad(f"it cannot be told from another failure: {case.outcome(look)}", hint, look)


def cold(case: Case) -> Verdict:
    """27: a deployment that starts."""
    found = [look for look in case.seen.looks if isinstance(look.error, EndpointCold)]
    if not found:
        return unseen("no reply says that a deployment is starting")
    return good(f"said by name, so that it is waited for: {case.outcome(found[0])}", *found)


def quota(case: Case) -> Verdict:
    """28: insufficient_quota."""
    found = [look for look in case.seen.errors if look.status == 429 and "insufficient_quota" in _names(look)]
    if not found:
        return unseen("no reply names insufficient_quota")
    if isinstance(found[0].error, EndpointRateLimited):
        return good("insufficient_quota with headers of a rate limit, where the reference means credit; taken for the rate", *found)
    return good("insufficient_quota, taken for the account's credit as the reference has it", *found)


def busy(case: Case) -> Verdict:
    """29: rates and capacity."""
    found = [look for look in case.seen.errors if look.status in (429, 503)]
    if not found:
        return unseen("no reply has status 429 or 503")
    pages = [look for look in found if shape_of(look) in ("page", "empty")]
    if pages:
        return bad(f"whose limit it is cannot be told: {case.outcome(pages[0])}", "say in JSON whether rate or capacity is meant", *pages)
    return good(f"{case.outcome(found[0])}; 429 is taken for your rate, 503 for the server's capacity", *found)


def page_503(case: Case) -> Verdict:
    """30: a proxy's page."""
    found = [look for look in case.seen.errors if look.status == 503]
    pages = [look for look in found if look.reply is not None and is_html(look.reply)]
    if pages:
        return bad(f"a web page: {case.outcome(pages[0])}", "let the proxy limit the rate with 429 and JSON", *pages)
    return good("503 comes as JSON", *found) if found else unseen("no reply has status 503")


def waiting(case: Case) -> Verdict:
    """31: how long to wait."""
    found = [look for look in case.seen.looks if look.status in (429, 503) or {"retry-after", "retry-after-ms"} & look.headers.keys()]
    if not found:
        return unseen("no reply asks to wait")
    look = next((one for one in found if one.status == 429), found[0])
    given = look.headers.get("retry-after-ms") or look.headers.get("retry-after")
    hint = "send Retry-After in seconds with every 429"
    if given is None:
        resets = any(limit.reset_s is not None for limit in read_limits(look.headers, utcnow()).limits)
        if look.status != 429 or resets:
            return good("no Retry-After; the client waits by its own rule, or by the reset of the limit", look)
        return bad("429 without Retry-After and without a reset", hint, look)
    seconds = retry_after(look.headers, utcnow())
    if seconds is None or seconds >= LONGEST_WAIT_S:
        return bad(f"Retry-After cannot be believed: {case.quote(given)}", hint, look)
    return good(f"Retry-After: {case.quote(given)}, read as {seconds:g} s", look)


def _names(look: Look) -> tuple[str | None, str | None]:
    assert look.reply is not None
    body = read_error(look.reply)
    return body.code, body.kind


FACTS = {
    **{23: context, 24: forbidden, 25: account, 26: unknown_model, 27: cold},
    **{28: quota, 29: busy, 30: page_503, 31: waiting},
}
