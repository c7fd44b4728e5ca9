"""Register, probe, evaluate, judge and bill through a real nginx that wants a key in a header, a user's certificate, or slowness."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from byok.sandbox import Sandbox
from byok_testing.installation import Byok, clean_environment
from byok_testing.leaks import hits, search_files
from byok_testing.nginx import Certificates, Nginx, location
from byok_testing.stack import started, wait_up

pytestmark = pytest.mark.prefect

ROWS = [(f"What is {number} plus {number}, asked in full length?", str(2 * number)) for number in range(10, 50)]
KEY = "gate-Wq7xV3mN9pL2wR8tY4uK6sD1fG0hJ5aB"
TENANT = "tenant-Bq8nM2vC7xZ4lK9jH3gF6dS1aP5oI0uY"
INPUT_PRICE, OUTPUT_PRICE = Decimal("0.15"), Decimal("0.6")

OUTSIDE = f"""
    map_hash_bucket_size 256;
    map "$http_x_api_key $http_x_tenant" $known {{ default 0; "{KEY} {TENANT}" 1; }}
    limit_req_zone $binary_remote_addr zone=slow:1m rate=20r/s;
"""
GATE = """default_type text/plain; if ($known = 0) { return 401 '{"message":"No API key found in request"}'; }"""
CERTIFIED = "if ($ssl_client_verify != SUCCESS) { return 403; }"
SLOW = "limit_req zone=slow burst=3 nodelay; limit_req_status 429;"


@dataclass(frozen=True)
class Site:
    """A proxy, with what stands behind it."""

    nginx: Nginx
    candidate: Sandbox
    judge: Sandbox

    def url(self, name: str) -> str:
        return f"https://{self.nginx.host_port}/{name}/v1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Site]:
    """The candidate wants a key in a header and one more; the judge a client certificate; a third place is the candidate, limited."""
    with ExitStack() as running:
        candidate = running.enter_context(Sandbox(ROWS, accuracy=0.7, seed=1, model_id="org/candidate#1", chunk_latency_ms=20))
        judge = running.enter_context(Sandbox(ROWS, model_id="org/judge"))
        inside = (
            f"ssl_client_certificate {certificates.ca}; ssl_verify_client optional;"
            + location(candidate.host_port, GATE, path="/serve/v1/")
            + location(candidate.host_port, GATE + SLOW, path="/slow/v1/")
            + location(judge.host_port, CERTIFIED, path="/judge/v1/")
        )
        nginx = running.enter_context(Nginx(tmp_path_factory.mktemp("site") / "nginx", certificates, inside, OUTSIDE))
        yield Site(nginx, candidate, judge)


@pytest.fixture(scope="module")
def byok(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Iterator[Byok]:
    """An installation of the organisation acme that is up, and may call the proxy."""
    home = tmp_path_factory.mktemp("installation") / "home"
    command = Byok(home, clean_environment(home))
    command.run("init", "--org", "acme", "--owner", "owner@acme.example")
    command.allow(site.nginx.allowed)
    with started([sys.executable, "-m", "byok.cli.main"], command.environment) as child:
        wait_up(child, home / "logs")
        yield command


def register(byok: Byok, name: str, base_url: str, model: str, ca: Path, *options: str, code: int = 0, **environment: str) -> Any:
    return byok.json(
        *("model", "register", name, "--name", name.title(), "--base-url", base_url, "--model-id", model, "--ca-file", str(ca)),
        *options,
        code=code,
        **environment,
    )


WITH_KEY = ("--auth", "header", "--auth-header", "X-API-Key", "--api-key-env", "GATE_KEY", "--header-env", "X-Tenant=GATE_TENANT")
PRICED = ("--price-input", str(INPUT_PRICE), "--price-output", str(OUTPUT_PRICE))
VALUES = {"GATE_KEY": KEY, "GATE_TENANT": TENANT}


@pytest.fixture(scope="module")
def registered(byok: Byok, site: Site, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Candidate, judge and data set; gives what was told of the candidate."""
    pair = ("--client-cert-file", str(certificates.client), "--client-key-file", str(certificates.client_key))
    told = register(byok, "candidate", site.url("serve"), site.candidate.model_id, certificates.ca, *WITH_KEY, *PRICED, **VALUES)
    register(byok, "slow", site.url("slow"), site.candidate.model_id, certificates.ca, *WITH_KEY, **VALUES)
    register(byok, "the-judge", site.url("judge"), site.judge.model_id, certificates.ca, "--auth", "none", *pair)
    rows = tmp_path_factory.mktemp("rows") / "sums.jsonl"
    rows.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in ROWS))
    byok.run("dataset", "add", "sums", str(rows), "--input", "question", "--expected", "answer")
    byok.run("judge", "create", "correct", "--model", "the-judge", "--system", "helpfulness", "--output", "binary")
    return told["model"]


@pytest.fixture(scope="module")
def probed(byok: Byok, registered: Any) -> Any:
    """What a full probe told."""
    return byok.json("model", "probe", "candidate", "--full")


@pytest.fixture(scope="module")
def run(byok: Byok, probed: Any, site: Site) -> Any:
    """The run over all rows, with a code grader and a judge; and what the two servers counted meanwhile."""
    before = site.candidate.stats(), site.judge.stats()
    options = ("--grader", "numeric", "--judge", "correct", "--concurrency", "8", "--yes")
    told = byok.json("evaluate", "candidate", "sums", *options)["run"]
    after = site.candidate.stats(), site.judge.stats()
    told["counted"] = [{name: new[name] - old[name] for name in new} for old, new in zip(before, after, strict=True)]
    return told


def test_what_the_proxy_refuses_is_not_registered(byok: Byok, site: Site, certificates: Certificates) -> None:
    wrong = {"GATE_KEY": KEY, "GATE_TENANT": "not-the-tenant"}
    error = register(byok, "wrong", site.url("serve"), "org/candidate#1", certificates.ca, *WITH_KEY, code=4, **wrong)["error"]
    assert error["code"] == "endpoint_auth"
    assert "No API key found in request" in error["message"]
    error = byok.json(
        *("model", "register", "wrong", "--name", "Wrong", "--base-url", site.url("serve"), "--model-id", "org/candidate#1", *WITH_KEY),
        code=4,
        **VALUES,
    )["error"]
    assert error["code"] == "endpoint_tls"
    assert byok.json("model", "list")["models"] == []


def test_a_full_probe_gives_no_first_token_time_of_a_buffer(byok: Byok, probed: Any) -> None:
    ((status, ttft_ms, requests),) = byok.sql(
        "SELECT status, ttft_ms, requests FROM v1.probes WHERE model_key = 'candidate' AND scope = 'full'"
    )
    assert (status, ttft_ms) == ("ok", None)
    assert requests >= 3
    found = dict(byok.sql("SELECT capability, outcome FROM v1.capabilities WHERE model_key = 'candidate' AND latest"))
    assert [found[name] for name in ("chat", "streaming", "json_schema", "tools", "vision")] == [*["supported"] * 4, "unsupported"]


def test_the_score_is_the_known_share_and_the_judge_agrees_row_by_row(byok: Byok, run: Any, site: Site) -> None:
    right = round(0.7 * len(ROWS))
    assert site.candidate.stats()["right_rows"] == right
    (numeric,) = [score for score in run["scores"] if score["grader"] == "numeric"]
    assert numeric["score"] == right / len(ROWS)
    assert [numeric[name] for name in ("planned", "answered", "failed", "unscored")] == [len(ROWS), len(ROWS), 0, 0]
    assert byok.sql(
        "SELECT code.passed, judge.passed, count(*) FROM v1.verdicts code JOIN v1.verdicts judge USING (run_id, sample_id) "
        f"WHERE code.kind = 'code' AND judge.kind = 'judge' AND run_id = '{run['run_id']}' GROUP BY ALL ORDER BY ALL"
    ) == [[False, False, len(ROWS) - right], [True, True, right]]


def test_requests_and_tokens_are_those_that_the_endpoints_counted(byok: Byok, run: Any) -> None:
    for key, counted in zip(("candidate", "the-judge"), run["counted"], strict=True):
        recorded = byok.sql(
            "SELECT count(*), sum(prompt_tokens), sum(completion_tokens) FROM v1.attempts "
            f"WHERE run_id = '{run['run_id']}' AND model_key = '{key}' AND status = 'ok' AND http_status = 200"
        )
        assert recorded == [[counted["chat_requests"], counted["prompt_tokens"], counted["completion_tokens"]]]
        # The rows, and the probe of the run.
        assert counted["answered"] == counted["chat_requests"] == len(ROWS) + 1
        assert counted["wrong_keys"] == 0


def test_the_bill_is_tokens_times_price(byok: Byok, run: Any) -> None:
    bill = byok.json("bill", "show", run["run_id"])["bill"]
    ((prompt, completion),) = byok.sql(
        f"SELECT sum(prompt_tokens), sum(completion_tokens) FROM v1.attempts WHERE run_id = '{run['run_id']}' AND model_key = 'candidate'"
    )
    assert prompt > 0 and completion > 0
    assert Decimal(bill["provider"]["total_usd"]) == (prompt * INPUT_PRICE + completion * OUTPUT_PRICE) / 1_000_000
    assert byok.sql(f"SELECT sum(quantity) FROM v1.charges WHERE run_id = '{run['run_id']}' AND sku = 'judge_call'") == [[len(ROWS)]]


def test_a_run_through_a_rate_limit_accounts_for_every_request(byok: Byok, run: Any, site: Site) -> None:
    before = site.candidate.stats()
    logged = len(site.nginx.seen())
    told = byok.json("evaluate", "slow", "sums", "--grader", "numeric", "--concurrency", "16", "--max-failure-rate", "1", "--yes")["run"]
    answered = site.candidate.stats()["answered"] - before["answered"]
    mine = [one["status"] for one in site.nginx.seen()[logged:] if one["path"].endswith("/chat/completions")]
    assert mine.count(429) > 0
    counted = byok.sql(f"SELECT http_status, count(*) FROM v1.attempts WHERE run_id = '{told['run_id']}' GROUP BY ALL ORDER BY ALL")
    assert counted == [[200, answered], [429, mine.count(429)]]
    assert set(mine) == {200, 429} and mine.count(200) == answered
    (score,) = told["scores"]
    assert score["answered"] + score["failed"] == score["planned"] == len(ROWS)
    ((samples,),) = byok.sql(f"SELECT count(*) FROM v1.samples WHERE run_id = '{told['run_id']}' AND status = 'answered'")
    assert samples == score["answered"]


def test_no_secret_is_left_in_the_data_or_in_what_was_printed(byok: Byok, run: Any, certificates: Certificates) -> None:
    lines = [line for line in certificates.client_key.read_text().splitlines() if not line.startswith("-----")]
    secrets = [KEY, TENANT, *lines]
    assert search_files(byok.home, secrets) == {}
    assert hits("\n".join(byok.outputs), secrets) == []
    # The search would find them: the proxy's own folder holds the keys.
    assert len(search_files(certificates.client_key.parent, lines)) == 1
