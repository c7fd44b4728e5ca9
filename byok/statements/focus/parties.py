"""Who provides what: the providers of the registered models, and the platform."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from byok.endpoint import ProfileUnknown, profile, profiles
from byok.ids import natural_id
from byok.warehouse import Queries

PLATFORM = "byok"
"""Name of the platform as provider and issuer of invoices."""


@dataclass(frozen=True)
class Party:
    """The provider of a model.

    Attributes:
        name: As its profile says, or the host of its address.
        account_id: Stands for the organisation's account there; the provider's own number of it is not known here.
        remote_id: What the provider calls the model.
    """

    name: str
    account_id: str
    remote_id: str


def parties(results: Queries, org_id: str) -> dict[str, Party]:
    """The providers of all models of an organisation, by id of the model."""
    rows = results.query("SELECT model_id, base_url, provider, remote_id FROM v1.models WHERE org_id = ?", [org_id]).rows
    return {model_id: _party(org_id, base_url, provider, remote_id) for model_id, base_url, provider, remote_id in rows}


def nobody(org_id: str, model_key: str | None) -> Party:
    """The provider of a model about which the warehouse holds nothing."""
    return Party("unknown", natural_id("billing_account", org_id, "unknown"), model_key or "unknown")


def _party(org_id: str, base_url: str, provider: str | None, remote_id: str) -> Party:
    host = urlsplit(base_url).hostname or "unknown"
    name = next((one.title for one in profiles() if one.claims_host(host)), host)
    if provider is not None:
        try:
            name = profile(provider).title
        except ProfileUnknown:
            name = provider
    return Party(name, natural_id("billing_account", org_id, host), remote_id)
