"""Which failed requests surely cost nothing: one rule for the bills, for what a probe may spend and for what a check counts."""

from __future__ import annotations

_NEVER_SENT = frozenset({"endpoint_unreachable", "endpoint_tls", "endpoint_forbidden_address"})
"""Errors before a request reaches a model."""

_MAY_COST = frozenset({408, 499, 504, 524})
"""Statuses by which somebody gave up waiting, and the model may have worked: it may be billed. 524 is Cloudflare's own."""


def never_billed(error_code: str | None, http_status: int | None) -> bool:
    """Whether a failed request surely cost nothing: it never reached a model, or an HTTP status refused it or sent it elsewhere.

    Args:
        error_code: Code of its named error.
        http_status: Of the reply; None when there was none.
    """
    if http_status is None:
        return error_code in _NEVER_SENT
    return http_status >= 300 and http_status not in _MAY_COST
