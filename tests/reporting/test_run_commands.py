"""`byok run`, `byok bill` and `byok report` on stored rows."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from byok.billing import charges_for, rate_card
from byok.cli.main import run
from byok.cli.report import FileExists, write_page
from byok.engine.plan import ModelRef
from byok.warehouse.rows import AttemptRow, RunRow, SampleRow, ScoreRow

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FIRST, SECOND = "019f0000-aaaa-7000-8000-000000000001", "019f0000-bbbb-7000-8000-000000000002"
MODEL = ModelRef(
    id="m-1",
    key="mine",
    revision=1,
    remote_id="mine-1",
    base_url="https://api.example/v1",
    origin="https://api.example",
    max_tokens=None,
    extra_payload={},
    public=False,
    price_input=Decimal("0.15"),
    price_output=Decimal("0.60"),
    key_version=1,
    capabilities={},
)
JUDGE = MODEL.model_copy(update={"id": "m-2", "key": "referee", "price_input": None, "price_output": None})


def rows_of(org, run_id, *, started=NOW, model=MODEL):
    """A run of one answered and judged row."""
    counts = {"planned": 1, "answered": 1, "empty": 0, "refused": 0, "failed": 0}
    attempt = AttemptRow(
        org_id=org,
        attempt_id=f"{run_id}-a",
        run_id=run_id,
        role="candidate",
        model_id=model.id,
        model_key=model.key,
        sample_id=f"{run_id}-s",
        judge=None,
        judge_version=None,
        number=1,
        status="ok",
        error_code=None,
        http_status=200,
        latency_ms=12.0,
        prompt_tokens=1000,
        completion_tokens=7,
        cached_tokens=None,
        reasoning_tokens=None,
        usage_class="reported",
        provider_request_id=None,
        key_version=1,
        opened_at=NOW,
        closed_at=NOW,
        recorded_at=NOW,
    )
    judged = replace(attempt, attempt_id=f"{run_id}-j", role="judge", judge="one", judge_version=1, model_id="m-2", model_key="referee")
    card = rate_card(NOW)
    return [
        RunRow(
            org_id=org,
            run_id=run_id,
            revision=1,
            status="completed",
            flow_run_id=None,
            member_id="me",
            model_id=model.id,
            model_key=model.key,
            dataset_id="d-1",
            dataset_name="questions",
            dataset_version="ab" * 32,
            config='{"min_scores": {}}',
            fingerprint="f",
            error_code=None,
            error_message=None,
            started_at=started,
            finished_at=started + timedelta(seconds=9),
            recorded_at=started,
            **counts,
        ),
        SampleRow(
            org_id=org,
            run_id=run_id,
            sample_id=f"{run_id}-s",
            row_number=0,
            row_id="0",
            row_hash="h",
            input="What?",
            expected="42",
            context=None,
            output="42",
            reasoning=None,
            status="answered",
            finish_reason="stop",
            error_code=None,
            attempts=1,
            latency_ms=12.0,
            prompt_tokens=1000,
            completion_tokens=7,
            occurred_at=NOW,
            recorded_at=NOW,
        ),
        ScoreRow(
            org_id=org,
            run_id=run_id,
            grader="numeric",
            revision=1,
            kind="code",
            metric="pass_rate",
            score=1.0,
            low=0.2065,
            high=1.0,
            method="wilson",
            unscored=0,
            scored=1,
            worst=1.0,
            best=1.0,
            recorded_at=NOW,
            **counts,
        ),
        attempt,
        judged,
        *charges_for(attempt, model, card),
        *charges_for(judged, JUDGE, card),
    ]


@pytest.fixture
def runs(services, monkeypatch):
    """An installation with two runs of its own and one of another organisation."""
    monkeypatch.setenv("COLUMNS", "200")
    other = MODEL.model_copy(update={"key": "yours"})
    services.warehouse.write_segment(
        [
            *rows_of(services.actor.org_id, FIRST),
            *rows_of(services.actor.org_id, SECOND, started=NOW + timedelta(hours=1), model=other),
            *rows_of("another", "019f0000-cccc-7000-8000-000000000003", started=NOW + timedelta(hours=2)),
        ]
    )
    services.warehouse.drain()


@pytest.fixture
def told(runs, capsys):
    """Run a command with --json; gives its exit code and what it printed."""

    def call(*words):
        code = run([*words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


def test_run_list(told):
    code, shape = told("run", "list")
    assert code == 0
    assert [one["run_id"] for one in shape["runs"]] == [SECOND, FIRST]
    assert shape["runs"][0]["scores"] == [{"grader": "numeric", "score": 1.0, "low": 0.2065, "high": 1.0}]
    assert [one["run_id"] for one in told("run", "list", "--model", "mine")[1]["runs"]] == [FIRST]
    assert [one["run_id"] for one in told("run", "list", "--limit", "1")[1]["runs"]] == [SECOND]
    assert told("run", "list", "--dataset", "nothing")[1] == {"runs": []}


@pytest.mark.parametrize(("name", "found"), [("latest", SECOND), ("019f0000-a", FIRST), (SECOND, SECOND)])
def test_run_show(told, name, found):
    code, shape = told("run", "show", name)
    assert (code, shape["run"]["run_id"], shape["run"]["provider_usd"], shape["run"]["ecu"]) == (0, found, "0.0001542", "0.05")
    assert shape["run"]["unpriced_charges"] == 2


@pytest.mark.parametrize("command", [("run", "show"), ("bill", "show"), ("report",)])
@pytest.mark.parametrize(("name", "error"), [("019f0000", "run_ambiguous"), ("019f0000-c", "run_not_found"), ("nothing", "run_not_found")])
def test_a_run_that_is_not_one(told, command, name, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, shape = told(*command, name)
    assert (code, shape["error"]["code"]) == (2, error)
    assert shape["error"]["hint"]
    assert not list(tmp_path.glob("*.html"))


def test_bill_show_for_machines(told):
    bill = told("bill", "show", "latest")[1]["bill"]
    assert (bill["provider"]["total_usd"], bill["provider"]["unpriced_charges"]) == ("0.0001542", 2)
    assert (bill["platform"]["total_ecu"], bill["platform"]["total_micro_ecu"]) == ("0.05", 50_000)
    assert [(line["role"], line["model_key"], line["sku"], line["amount_usd"]) for line in bill["provider"]["lines"]] == [
        ("candidate", "yours", "tokens/input", "0.00015"),
        ("candidate", "yours", "tokens/output", "0.0000042"),
        ("judge", "referee", "tokens/input", None),
        ("judge", "referee", "tokens/output", None),
    ]


def test_bill_show_for_people(runs, capsys):
    assert run(["bill", "show", "latest"]) == 0
    shown = capsys.readouterr()
    titles = next(line for line in shown.out.splitlines() if "provider bill (USD)" in line)
    assert "platform bill (ECU)" in titles  # side by side
    assert "0.0001542" in shown.out and "0.05" in shown.out and "unknown" in shown.out
    assert "2 charges on the provider bill have an unknown amount" in shown.err
    assert "byok price set referee" in shown.err


def test_report_takes_the_place_of_a_report_alone(told, tmp_path):
    page = tmp_path / "page.html"
    code, shape = told("report", FIRST, "-o", str(page))
    assert (code, shape) == (0, {"report": {"run_id": FIRST, "path": str(page)}})
    assert FIRST in page.read_text()
    assert told("report", SECOND, "-o", str(page))[0] == 0
    assert SECOND in page.read_text()
    page.write_text("<!doctype html>my own words")
    code, shape = told("report", FIRST, "-o", str(page))
    assert (code, shape["error"]["code"]) == (2, "file_exists")
    assert "--force" in shape["error"]["hint"]
    assert page.read_text() == "<!doctype html>my own words"
    assert told("report", FIRST, "-o", str(page), "--force")[0] == 0
    assert FIRST in page.read_text()
    assert [path.name for path in tmp_path.glob("*page*")] == ["page.html"]  # nothing half-written stays


def test_a_report_that_cannot_be_written(told, tmp_path):
    for target in (tmp_path, tmp_path / "nowhere" / "page.html"):
        code, shape = told("report", FIRST, "-o", str(target), "--force")
        assert (code, shape["error"]["code"]) == (2, "file_unwritable")


def test_a_link_to_nowhere_is_not_followed(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link.html"
    link.symlink_to(target)
    with pytest.raises(FileExists):
        write_page(link, "page", force=False)
    write_page(link, "page", force=True)
    assert not link.is_symlink() and not target.exists()
