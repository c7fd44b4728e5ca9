"""Facts 10 to 13 and 53: address, redirects, key, certificate, connections."""

from __future__ import annotations

from byok.endpoint.checking.verdict import Case, Verdict, bad, good, numbers, unanswered, unseen
from byok.endpoint.errors import EndpointAuth, EndpointForbidden, EndpointNotOpenAI, EndpointTls, EndpointUnreachable


def base_url(case: Case) -> Verdict:
    """10: routes below the base URL."""
    chat = case.seen.last("chat")
    if chat is None:
        return unanswered(case, "chat")
    path = case.base.join(chat.route)[len(case.base.origin) :]
    if isinstance(chat.error, EndpointNotOpenAI):
        return bad(f"POST {case.quote(path, 120)}: {case.outcome(chat)}", chat.error.hint, chat)
    if chat.answer is None and chat.status is None:
        return unanswered(case, "chat")
    return good(f"POST {case.quote(path, 120)} is the chat route", chat)


def redirects(case: Case) -> Verdict:
    """11: no reply is a redirect."""
    replies = [look for look in case.seen.looks if look.status is not None]
    moved = [look for look in replies if look.status is not None and 300 <= look.status < 400]
    if moved:
        hint = "answer at the address that is given; a POST that is redirected loses its body, or takes its key elsewhere"
        return bad(f"{numbers(moved)}: {case.outcome(moved[0])}", hint, *moved)
    return good(f"none of {len(replies)} replies is a redirect") if replies else unseen("there was no reply")


def key(case: Case) -> Verdict:
    """12: the key is read where it is sent."""
    chat, wrong = case.seen.last("chat"), case.seen.last("wrong_key")
    if chat is None:
        return unanswered(case, "chat")
    told = case.target.shown.describe()
    way = {
        "bearer": "a bearer key",
        "header": f"the key in {case.quote(told.get('header', ''))}",
        "basic": "a user and a password (Basic)",
        "none": "no key",
    }[told["scheme"]]
    if isinstance(chat.error, EndpointAuth | EndpointForbidden):
        return bad(f"{way} is refused: {case.outcome(chat)}", chat.error.hint, chat)
    if not case.target.with_key:
        return unseen("no key was given, and none is needed" if chat.answer is not None else "no key was given", chat)
    if chat.answer is None:
        return unanswered(case, "chat")
    if wrong is None or wrong.status not in (401, 403):
        return unseen(f"{way} is answered; whether it is read is not known", chat)
    return good(f"{way} is taken; a random one is refused with HTTP {wrong.status}", chat, wrong)


def certificate(case: Case) -> Verdict:
    """13: a certificate that is trusted."""
    failed = next((look for look in case.seen.looks if isinstance(look.error, EndpointTls)), None)
    if failed is not None and failed.error is not None:
        return bad(failed.error.message, failed.error.hint, failed)
    if case.base.url.startswith("http://"):
        return unseen("plain http: there is no certificate")
    if all(look.status is None for look in case.seen.looks):
        return unseen("there was no reply")
    told = case.target.shown.describe()
    mine = "; a client certificate was shown" if "certificate" in told else ""
    if "ca" in told:
        return good(f"trusted by the private authority that was given{mine}")
    return good(f"trusted by the usual authorities{mine}")


def connections(case: Case) -> Verdict:
    """53: kept connections."""
    dead = [look for look in case.seen.looks[1:] if isinstance(look.error, EndpointUnreachable)]
    if dead and case.seen.looks[0].status is not None:
        hint = "answer before closing a connection, and say Connection: close when one ends"
        return bad(f"{numbers(dead)}: {case.outcome(dead[0])}", hint, *dead)
    closing = [look for look in case.seen.looks if "close" in look.headers.get("connection", "").lower()]
    if closing:
        return good(f"connections end with their answer, and say so ({numbers(closing[:1])})", *closing[:1])
    return unseen("no request met a connection that had gone stale; idle time is not waited for")


FACTS = {10: base_url, 11: redirects, 12: key, 13: certificate, 53: connections}
