"""`byok price` as people use it: what it shows, sets and applies, in text and in JSON."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from byok.cli.main import run
from byok_testing.bench import Bench


@pytest.fixture
def bench(services, monkeypatch, tmp_path):
    with Bench(services, monkeypatch, tmp_path, [(f"What is {n} + 1?", str(n + 1)) for n in range(5)]) as made:
        made.serve(price=None)
        yield made


@pytest.fixture
def call(bench, capsys):
    def do(words):
        code = run(words.split())
        out, err = capsys.readouterr()
        return code, out, err

    return do


def told(call, words):
    code, out, err = call(f"{words} --json")
    assert code == 0, err
    return json.loads(out)


def test_from_no_price_to_priced_charges(bench, call):
    plan, _ = bench.run()
    code, out, err = call("price show model")
    assert code == 0 and "no price is known" in out and "byok price set model --input USD --output USD" in err
    assert told(call, "price apply")["applied"]["corrected"] == 0
    code, out, err = call("price apply")
    assert code == 0 and "14 charges of model have no price: byok price set model" in err and "then: byok price apply" in err
    yesterday = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
    code, out, _ = call(f"price set model --input 0.15 --output 0.60 --cached-input 0.05 --from {yesterday}")
    assert code == 0 and "input 0.15, cached input 0.05, output 0.6" in out and f"from {yesterday} 00:00:00 UTC on" in out
    assert "14 charges of it have no price yet: byok price apply" in out
    code, out, err = call("price apply")
    assert code == 0 and "14 charges priced" in out and err == ""
    applied = told(call, "price apply")["applied"]
    assert applied == {"corrected": 0, "usd": "0", "unpriced": 0, "models": []}
    code, out, _ = call(f"bill show {plan.run_id}")
    assert code == 0 and "unknown" not in out
    shown = told(call, f"bill show {plan.run_id}")["bill"]["provider"]
    assert shown["unpriced_charges"] == 0 and {line["unit_price"] for line in shown["lines"]} == {"0.15", "0.6"}


def test_a_price_is_shown_for_any_time(bench, call):
    told(call, "price set model --input 1 --output 2 --from 2026-01-05")
    told(call, "price set model --gpu-hour 2.49 --gpus 8 --from 2026-02-01T12:30Z --note contract")
    told(call, "price set model --reported --from 2999-01-01")
    kinds = [
        told(call, f"price show model --at {at}")["price"]
        for at in ("2026-01-04", "2026-01-05", "2026-02-01T12:29:59Z", "2026-02-02", "2999-01-02")
    ]
    assert [price["kind"] for price in kinds] == ["none", "token", "token", "gpu_hour", "reported"]
    assert (kinds[1]["input"], kinds[1]["cached_input"], kinds[3]["usd_per_gpu_hour"], kinds[3]["gpus"]) == ("1", "1", "2.49", 8)
    assert kinds[3]["ecu"] == {"rate_card": "2026-01", "judge_call": "0.05", "input_per_mtok": None, "output_per_mtok": None}
    entries = told(call, "price history model")["entries"]
    assert [entry["kind"] for entry in entries] == ["reported", "gpu_hour", "token"]
    assert entries[1]["note"] == "contract" and entries[1]["version"] == f"price:{entries[1]['id']}"
    for words in ("price history model", "price show model", "price show model --at 2026-01-05"):
        code, out, _ = call(words)
        assert code == 0 and out
    assert bench.query("SELECT price_input_usd_per_mtok FROM v1.models WHERE key = 'model'") == [(None,)]
    told(call, "price set model --input 3 --output 4")
    assert bench.query("SELECT price_input_usd_per_mtok, price_output_usd_per_mtok FROM v1.models WHERE key = 'model'") == [(3, 4)]
    assert told(call, "model show model")["model"]["price_input"] == "3"


def test_a_public_model_has_rates_in_ecu(bench, call):
    bench.serve("shared", public=True, price=None)
    shown = told(call, "price show shared")["price"]
    assert shown["ecu"] == {"rate_card": "2026-01", "judge_call": "0.05", "input_per_mtok": "1", "output_per_mtok": "4"}
    code, out, _ = call("price show shared")
    assert code == 0 and "ECU per million tokens" in out and "rate card 2026-01" in out
    code, _, err = call("price set shared --input 1 --output 1")
    assert code == 2 and "rate card" in err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("price show none", "model_not_registered"),
        ("price history none", "model_not_registered"),
        ("price set none --reported", "model_not_registered"),
        ("price set model", "bad_price"),
        ("price set model --gpus 2", "bad_price"),
        ("price set model --reported --input 1", "bad_price"),
        ("price set model --input -1 --output 1", "bad_amount"),
        ("price set model --input x", "bad_amount"),
        ("price set model --input 1 --from yesterday", "bad_time"),
        ("price set model --input 1 --from 2026-13-01", "bad_time"),
        ("price set model --input 1 --from 20260101", "bad_time"),
        ("price show model --at 12:00", "bad_time"),
    ],
)
def test_what_cannot_be_is_refused_with_a_hint(bench, call, words, code):
    exit_code, out, err = call(f"{words} --json")
    assert exit_code == 2
    error = json.loads(out or err)["error"]
    assert error["code"] == code and error["hint"]
    assert bench.services.prices.history(bench.services.actor, "model") == []
