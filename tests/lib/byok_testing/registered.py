"""Models that are registered at sandboxes: probe and check them, and read what is stored of it."""

import asyncio

import orjson
from pydantic import SecretStr

from byok.registry import RegisterRequest

KEY = "sk-health-6f5e4d3c2b1a09f8e7d6c5b4a3928170"


def register(services, server, key="m", *, full=False, strict=False, **options):
    """Register a model at a sandbox."""
    request = RegisterRequest(**({"key": key, "name": "M", "base_url": server.base_url, "remote_id": server.model_id} | options))
    return asyncio.run(services.registry.register(services.actor, request, SecretStr(KEY), full=full, strict=strict))


def check(services, actor=None, key="m", **options):
    """Check a model as the schedule does."""
    return asyncio.run(services.health.check(actor or services.actor, key, **options))


def probe(services, key="m", **options):
    """Probe a model as the command does."""
    return asyncio.run(services.registry.probe(services.actor, key, **options))


def get(services, key="m"):
    """The model as it is now."""
    return services.registry.get(services.actor, key)


def query(services, sql):
    """The rows that a query of the warehouse finds."""
    return services.warehouse.query(sql).rows


def audited(services, action="model.health"):
    """The details of all audit entries of an action, the oldest first."""
    entries = services.audit.entries(services.actor.org_id)
    return [orjson.loads(entry.detail) for entry in reversed(entries) if entry.action == action]


PROBES = "SELECT cause, scope, status, error_code, health, failures, requests FROM v1.probes ORDER BY started_at, probe_id"
"""Asks for all probes, the oldest first."""
