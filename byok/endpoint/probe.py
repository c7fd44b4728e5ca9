"""The probe: is this an endpoint that answers for this model with this key, at the price of one token?"""

from __future__ import annotations

from byok.endpoint.classify import TOKEN_PARAMETERS
from byok.endpoint.client import EndpointClient
from byok.endpoint.errors import BadRequest, EndpointError
from byok.endpoint.probing.listing import explained, note_oddities, read_list
from byok.endpoint.probing.record import ProbeAttempt, ProbeLog, ProbeResult
from byok.endpoint.probing.session import Session

__all__ = ["MORE_TOKENS", "ProbeAttempt", "ProbeLog", "ProbeResult", "ask_token", "ask_vectors", "probe"]

MORE_TOKENS = 16
"""Asked for when an endpoint refuses a limit of one token (some have a least value)."""

_QUESTION = [{"role": "user", "content": "Reply with OK."}]
_TEXTS = ["OK"]


async def probe(client: EndpointClient, *, embeddings: bool = False, log: ProbeLog | None = None) -> ProbeResult:
    """Read the models list where one is offered, and ask for one token or, of a model that makes embeddings, for one vector.

    The list alone decides nothing: it may be open while chat needs a key, closed while chat works, or incomplete.

    Args:
        client: Whom to ask.
        embeddings: Ask for an embedding instead of a chat completion.
        log: Where the requests are noted as they end.

    Raises:
        EndpointError: The endpoint does not answer for this model with this key.
    """
    session, warnings = Session(client, log or ProbeLog()), list[str]()
    listed = await read_list(client, warnings)
    dimensions: int | None = None
    failure: EndpointError | None
    if embeddings:
        dimensions, failure = await ask_vectors(session, _TEXTS)
    else:
        failure = await ask_token(session, warnings)
    if failure is not None:
        raise explained(failure, client, listed, embeddings=embeddings)
    last = session.log.attempts[-1]
    known = note_oddities(client, listed, last, warnings)
    return ProbeResult(
        models_listed=known,
        attempts=session.log.attempts,
        latency_ms=last.latency_ms,
        warnings=warnings,
        token_parameter=client.token_parameter,
        chat=not embeddings,
        dimensions=dimensions,
    )


async def ask_token(session: Session, warnings: list[str]) -> EndpointError | None:
    """Ask for one token, in the way that the endpoint wants; the error when none comes."""
    client = session.client
    failure = (await session.chat(_QUESTION, 1)).error
    if failure is not None and client.adapt(failure):
        warnings.append(f"the endpoint takes {client.token_parameter}, not {_other(client.token_parameter)}")
        failure = (await session.chat(_QUESTION, 1)).error
    if isinstance(failure, BadRequest) and failure.parameter in TOKEN_PARAMETERS:
        warnings.append("the endpoint refuses a limit of one token")
        failure = (await session.chat(_QUESTION, MORE_TOKENS)).error
    return failure


async def ask_vectors(session: Session, texts: list[str]) -> tuple[int | None, EndpointError | None]:
    """Ask for embeddings, in the way that the endpoint wants: the dimensions, or the error when none come."""
    seen = await session.embed(texts)
    if seen.error is not None and session.client.adapt(seen.error):
        seen = await session.embed(texts)
    return seen.answer.dimensions if seen.answer is not None else None, seen.error


def _other(name: str) -> str:
    return next(other for other in TOKEN_PARAMETERS if other != name)
