"""The endpoint's list of models, as far as a probe needs it: hints, and a better word where the model is not found."""

from __future__ import annotations

import difflib

from byok.endpoint.catalogue import Catalogue
from byok.endpoint.client import EndpointClient
from byok.endpoint.errors import (
    EndpointAuth,
    EndpointError,
    EndpointRedirect,
    EndpointTls,
    EndpointUnreachable,
    ForbiddenAddress,
    RemoteModelNotFound,
)
from byok.endpoint.probing.record import ProbeAttempt

_FATAL = (EndpointUnreachable, EndpointTls, EndpointRedirect, ForbiddenAddress)
_FINAL = (EndpointAuth, *_FATAL)


async def read_list(client: EndpointClient, warnings: list[str]) -> Catalogue | None:
    """The list of models; None when there is none that can be read, which is a warning.

    Raises:
        EndpointError: No connection to the endpoint is possible at all.
    """
    try:
        return await client.catalogue()
    except _FATAL:
        raise
    except EndpointError as error:
        warnings.append(f"the models list cannot be read: {error.message}")
    return None


def note_oddities(client: EndpointClient, listed: Catalogue | None, answered: ProbeAttempt, warnings: list[str]) -> bool | None:
    """Warn of what is odd about a model that answers; whether it is in the list, None without one."""
    known = None if listed is None else listed.find(client.remote_id) is not None
    if known is False:
        warnings.append(f"the endpoint answers for {client.remote_id!r}, but does not list it")
    if answered.usage.usage_class != "reported":
        warnings.append(f"usage is {answered.usage.usage_class}: the cost of answers will be unknown")
    return known


def explained(error: EndpointError, client: EndpointClient, listed: Catalogue | None, *, embeddings: bool) -> EndpointError:
    """The same error, with a better hint where the list has one: names near an unknown one, or what kind of model it is."""
    if listed is None or not listed.models:
        return error
    mine = listed.find(client.remote_id)
    if mine is not None and mine.kind is not None and not error.retryable and not isinstance(error, _FINAL):
        if mine.kind == "embedding" and not embeddings:
            return type(error)(error.message, hint="the endpoint lists it as an embedding model: add --tag embeddings", **error.fields)
        if mine.kind == "chat" and embeddings:
            return type(error)(error.message, hint="the endpoint lists it as a chat model: leave the tag embeddings out", **error.fields)
    if not isinstance(error, RemoteModelNotFound):
        return error
    # Comparing takes time that grows with length and number, and a list may have any.
    names = [client.redact(model.id) for model in listed.models]
    compared = [name for name in names[:1000] if len(name) <= 100]
    near = difflib.get_close_matches(client.remote_id, compared, n=3, cutoff=0.4) or names[:3]
    shown = ", ".join(name[:80] for name in near)
    return RemoteModelNotFound(error.message, hint=f"the endpoint lists {len(names)} models, such as: {shown}", **error.fields)
