"""Check that the registered models still answer, on a schedule or on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from prefect import flow
from prefect.artifacts import acreate_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from byok.errors import ByokError
from byok.registry import Checked
from tasks.artifacts import health_rows
from tasks.probing import check_model, models_to_check

AT_ONCE = 4
"""Models that are checked at once."""

_MOST_NAMED = 20
"""Models that the final state's message names."""


@flow(name="probe_models", persist_result=False, validate_parameters=True)
async def probe_models(models: Sequence[str] = (), full: bool = False) -> State[Any]:
    """Ask each model for one token (or one vector); after three failures in a row a model is degraded or unreachable.

    Args:
        models: Keys of the models; empty for all that are active. Disabled ones are left out.
        full: Find out what the models can do too, for at most 300 tokens each.
    """
    keys = models_to_check(list(models))
    checked = await _side_by_side(keys, full)
    await acreate_table_artifact(key="model-health", table=health_rows(checked), description="Whether each model answers, and its health.")
    failed = [f"{one.key}: {one.error_code}" for one in checked if not one.ok]
    if failed:
        more = f" and {len(failed) - _MOST_NAMED} more" if len(failed) > _MOST_NAMED else ""
        return Failed(name="Degraded", message=f"{len(failed)} of {len(checked)} models fail: {', '.join(failed[:_MOST_NAMED])}{more}")
    return Completed(message=f"{len(checked)} model(s) answer" if checked else "there is no active model")


async def _side_by_side(keys: list[str], full: bool) -> list[Checked]:
    """Check all of them, a few at a time; one that fails does not keep the others from being checked."""
    free = asyncio.Semaphore(AT_ONCE)

    async def check(key: str) -> Checked:
        async with free:
            try:
                return await check_model(key, full)
            except Exception as error:
                # Not the endpoint's failure: the key does not open, or somebody disabled the model meanwhile. Nothing was counted.
                code = error.code if isinstance(error, ByokError) else "internal_error"
                return Checked(key, "not checked", 0, code, None, 0)

    return list(await asyncio.gather(*(check(key) for key in keys)))
