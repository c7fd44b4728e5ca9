"""What the tests of outgoing requests share: registrations and chat calls, and how they are refused."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

from byok.control.tables import model as model_table
from byok.control.tables import model_secret
from byok.endpoint import ChatAnswer, EgressPolicy, EndpointClient, EndpointError
from byok.errors import ByokError
from byok.registry import RegisterRequest
from byok_testing.leaks import hits, search_files

KEY = "sk-egress-7c1d9e2f4a5b6c8d0e1f2a3b4c5d6e7f"
PROMPT = "the prompt that nobody else may see"
MESSAGES = [{"role": "user", "content": PROMPT}]
GOOD = {
    "choices": [{"message": {"role": "assistant", "content": "OK"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}
CLOSED = EgressPolicy()

METADATA_IN_DISGUISE = [
    *("[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[0:0:0:0:0:ffff:169.254.169.254]", "[::ffff:0:169.254.169.254]"),
    *("[::169.254.169.254]", "[::a9fe:a9fe]"),
    *("[64:ff9b::a9fe:a9fe]", "[64:ff9b::169.254.169.254]", "[64:ff9b:1::a9fe:a9fe]", "[64:ff9b:1:ffff::a9fe:a9fe]"),
    *("[2002:a9fe:a9fe::]", "[2002:a9fe:a9fe::1]", "[2002:7f00:1::]"),
    *("[2001:0:a9fe:a9fe::1]", "[2001:0:4136:e378:8000:63bf:5601:5601]", "[2001::1]"),
    *("192.0.0.192", "168.63.129.16", "100.100.100.200", "[fd00:ec2::254]", "[fd00:ec2::23]", "[fd20:ce::254]"),
    *("[fd00:c1::a9fe:a9fe]", "[fd00:42::42]", "[fd00:a9fe:a9fe::1]", "[fd00:100::100:200]", "[fe80::a9fe:a9fe]"),
]


def request(base_url: str, key: str = "m", **options: Any) -> RegisterRequest:
    return RegisterRequest(**{"key": key, "name": "M", "base_url": base_url, "remote_id": "org/remote#1"} | options)


def register(services: Any, base_url: str, **options: Any) -> Any:
    return asyncio.run(services.registry.register(services.actor, request(base_url, **options), SecretStr(KEY)))


def refusal(call: Callable[[], Any]) -> type[ByokError] | None:
    """The class of the error that a call ends with; nothing that hangs on the error knows the key."""
    try:
        call()
    except ByokError as error:
        assert not hits("".join(traceback.format_exception(error)) + repr((error.fields, error.hint)), [KEY])
        return type(error)
    return None


def refusals(urls: Iterable[str], services: Any, policy: EgressPolicy = CLOSED) -> dict[str, set[type[ByokError] | None]]:
    """How a base URL is refused: by the policy alone, and by a registration."""
    return {url: {refusal(lambda url=url: policy.check_base_url(url)), refusal(lambda url=url: register(services, url))} for url in urls}


def assert_nothing_stored(services: Any) -> None:
    with services.control.read() as connection:
        assert [connection.execute(select(func.count()).select_from(table)).scalar() for table in (model_table, model_secret)] == [0, 0]
    for view in ("models", "attempts", "charges"):
        assert services.warehouse.query(f"SELECT count(*) FROM v1.{view}").rows == [(0,)]
    assert search_files(services.home.root, [KEY]) == {}


def ask(base_url: str, policy: EgressPolicy | str, *, calls: int = 1, key: str | None = KEY, **options: Any) -> ChatAnswer:
    """The answer to the last of some chat calls through one client."""

    async def go() -> ChatAnswer:
        rules = EgressPolicy.parse(policy) if isinstance(policy, str) else policy
        async with EndpointClient(base_url, "org/remote#1", key, policy=rules, **{"timeout_s": 10.0} | options) as chat:
            for _ in range(calls - 1):
                await chat.chat(MESSAGES)
            return await chat.chat(MESSAGES)

    return asyncio.run(go())


def fails(*arguments: Any, **options: Any) -> EndpointError:
    """The error that a chat call ends with; nothing that hangs on it knows the key."""
    with pytest.raises(EndpointError) as caught:
        ask(*arguments, **options)
    error = caught.value
    assert (error.__cause__, error.__context__) == (None, None)
    assert not hits("".join(traceback.format_exception(error)) + repr((error.fields, error.hint)), [KEY])
    return error
