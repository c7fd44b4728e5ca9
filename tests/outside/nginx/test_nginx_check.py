"""`byok endpoint check` through a real nginx: it finds what the proxy does to an endpoint that is well."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from byok.sandbox import Sandbox
from byok_testing.egress import PROMPT
from byok_testing.installation import Byok, clean_environment
from byok_testing.leaks import hits
from byok_testing.nginx import Certificates, Nginx, location

GATE = "gate-Xk4vB7nM2qL8wR3tY6uJ1sD9fG5hC0aE"
REFUSING = """default_type text/plain; if ($known = 0) { return 401 '{"message":"No API key found in request"}'; }"""


@pytest.fixture(scope="module")
def streaming() -> Iterator[Sandbox]:
    """An endpoint whose streams take their time."""
    with Sandbox([(PROMPT, "OK")], model_id="org/remote#1", chunk_latency_ms=150) as running:
        yield running


@pytest.mark.parametrize(("rules", "streams"), [("", "fail"), ("proxy_buffering off;", "pass")], ids=["buffered", "unbuffered"])
def test_the_report_tells_what_the_proxy_does(
    proxied: Callable[..., Nginx], streaming: Sandbox, certificates: Certificates, tmp_path: Path, rules: str, streams: str
) -> None:
    gate = f'map_hash_bucket_size 256; map $http_x_api_key $known {{ default 0; "{GATE}" 1; }}'
    nginx = proxied(location(streaming.host_port, REFUSING + rules), gate)
    byok = Byok(tmp_path / "home", clean_environment(tmp_path / "home"))
    byok.allow(nginx.allowed)
    told = byok.run(
        *("endpoint", "check", nginx.base_url, "--model-id", streaming.model_id, "--yes", "--json", "--ca-file", str(certificates.ca)),
        *("--auth", "header", "--auth-header", "X-API-Key", "--api-key-env", "GATE_KEY"),
        code=1,
        GATE_KEY=GATE,
    )
    facts: dict[int, Any] = {fact["number"]: fact for fact in json.loads(told.stdout)["check"]["facts"]}
    assert [facts[number]["outcome"] for number in (9, 10, 11, 12, 13, 19, 21)] == ["pass"] * 7
    assert "X-API-Key" in facts[12]["seen"] and "text/plain" in facts[19]["seen"]
    assert facts[52]["outcome"] == streams, facts[52]["seen"]
    assert ("proxy_buffering off" in facts[52]["hint"]) == (streams == "fail")
    # The proxy's own refusals carry no id of a request.
    assert facts[22]["outcome"] == "fail"
    assert hits("\n".join(byok.outputs), [GATE]) == []
