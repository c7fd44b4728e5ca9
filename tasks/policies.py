"""How every task of ours is set up.

Caching is off: side effects are idempotent by natural key, and a cache key must never depend on a value that Prefect
masks. Results are not persisted: what was done stands in the journals and the warehouse. Names carry no parameters, since
run names are readable by everyone who reaches the API.
"""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE

SETTINGS: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False, "log_prints": False}
