"""A provider's export against the records: layouts, differences and what accounts for them, and files that are refused whole."""

import json
from contextlib import suppress
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from byok.errors import InputError
from byok.statements.reconcile import BadMap, parse_map, read_usage
from byok_testing.money_rows import attempt_row, model_row, tokens

HEADER = "date,model,requests,input_tokens,output_tokens,cost\n"


@pytest.fixture
def recorded(put, org):
    """Two requests on one day, one on the next, with their charges."""
    put(
        model_row(org, "m-1", "mine", "https://api.together.ai/v1", "acme/llama"),
        attempt_row(org, "2026-05-05T10:00:00", 100, 10),
        attempt_row(org, "2026-05-05T23:59:00", 200, 20),
        attempt_row(org, "2026-05-06T00:00:01", 50, 5),
        attempt_row(org, "2026-05-06T00:00:02", None, None, status="error", usage_class="missing", http_status=401, error_code="auth"),
        tokens(org, "2026-05-05T10:00:01", 330, "10"),
        tokens(org, "2026-05-06T00:00:02", 55, "10"),
    )


@pytest.fixture
def compare(byok, tmp_path):
    def run(text, *words, name="usage.csv"):
        path = tmp_path / name
        path.write_text(text)
        code, shown, _ = byok("bill", "reconcile", str(path), *words, "--json")
        made = json.loads(shown)
        return code, made.get("reconciliation") or made["error"]

    return run


def codes(made):
    return [[one["code"] for one in line["explanations"]] for line in made["lines"]]


def test_what_is_the_same_ties(recorded, compare, byok, tmp_path):
    code, made = compare(HEADER + "2026-05-05,acme/llama,2,300,30,0.0033\n2026-05-06,acme/llama,1,50,5,0.00055\n")
    assert (code, made["explained"], codes(made)) == (0, True, [[], []])
    assert made["totals"]["usd"] == {"recorded": "0.00385", "told": "0.00385", "difference": "0"}
    assert (made["first_day"], made["last_day"], made["lines"][0]["keys"]) == ("2026-05-05", "2026-05-06", ["mine"])
    code, shown, _ = byok("bill", "reconcile", str(tmp_path / "usage.csv"))
    assert code == 0 and "2 lines, 0 differ" in shown


@pytest.mark.parametrize(
    ("rows", "code", "why"),
    [
        ("2026-05-05,acme/llama,3,400,40,0.0044\n", 1, [["other_users"]]),
        ("2026-05-05,acme/llama,1,100,10,0.0011\n", 1, [["not_told"]]),
        ("2026-05-05,acme/llama,2,300,30,0.01\n", 0, [["price_differs"]]),
        ("2026-05-05,acme/llama,2,300,30,0\n", 0, [["rounded"]]),
        ("2026-05-05,acme/llama,2,300,30,1\n", 0, [["price_differs"]]),
        ("2026-05-05,gpt-9,1,1,1,0.1\n2026-05-05,acme/llama,2,300,30,0.0033\n", 1, [[], ["unknown_model"]]),
        ("2026-05-05,acme/llama,1,100,10,0.0011\n2026-05-06,acme/llama,2,250,25,0.00275\n", 0, [["day_boundary"], ["day_boundary"]]),
        ("2026-05-05,acme/llama,2,300,30,0.0033\n2026-05-07,acme/llama,0,0,0,0\n", 1, [[], ["not_told"], []]),
    ],
)
def test_each_difference_is_explained_by_what_accounts_for_it(recorded, compare, rows, code, why):
    found, made = compare(HEADER + rows)
    assert (found, codes(made)) == (code, why)


def test_requests_of_unknown_end_account_for_as_much_as_they_can_have_used(recorded, compare, put, org):
    put(attempt_row(org, "2026-05-05T11:00:00", None, None, status="lost", http_status=None, usage_class="missing", closed_at=None))
    assert codes(compare(HEADER + "2026-05-05,acme/llama,3,450,45,0.0033\n")[1]) == [["unknown_requests"]]
    assert codes(compare(HEADER + "2026-05-05,acme/llama,3,900,45,0.0033\n")[1]) == [["other_users"]]
    assert codes(compare(HEADER + "2026-05-05,acme/llama,4,450,45,0.0033\n")[1]) == [["other_users"]]
    put(attempt_row(org, "2026-05-05T12:00:00", None, None))
    assert codes(compare(HEADER + "2026-05-05,acme/llama,3,450,45,0.0033\n")[1]) == [["unknown_requests"]]


def test_charges_without_a_price_explain_a_cost_that_is_told(recorded, compare, put, org):
    put(tokens(org, "2026-05-05T10:00:01", 30, None, token_type="output"))
    assert codes(compare(HEADER + "2026-05-05,acme/llama,2,300,30,0.5\n")[1]) == [["unpriced"]]


def test_one_model_and_one_month_can_be_picked(recorded, compare, put, org):
    put(
        model_row(org, "m-2", "other", "https://x.example/v1", "gpt-9"),
        attempt_row(org, "2026-05-05T10:00:00", model_id="m-2", model_key="other"),
    )
    rows = HEADER + "2026-05-05,acme/llama,2,300,30,0.0033\n2026-05-05,gpt-9,7,7,7,7\n2026-04-01,gpt-9,1,1,1,1\n"
    code, made = compare(rows, "--model", "mine", "--month", "2026-05")
    assert code == 1 and [(line["day"], codes) for line, codes in zip(made["lines"], codes(made), strict=True)] == [
        ("2026-05-05", []),
        ("2026-05-06", ["not_told"]),
    ]
    assert compare(rows, "--model", "none")[1]["code"] == "model_unrecorded"
    assert compare(rows, "--month", "2026-07")[1]["code"] == "nothing_to_compare"
    assert compare("date,requests\n2026-05-05,2\n")[1]["code"] == "nothing_to_compare"
    assert compare("date,requests\n2026-05-05,2\n", "--model", "mine")[0] == 0


LAYOUTS = {
    "openai.csv": (
        "start_time,end_time,start_time_iso,project_id,num_model_requests,model,input_tokens,output_tokens,input_cached_tokens\n"
        "1777939200,1778025600,2026-05-05T00:00:00+00:00,p,2,llama-2026-01-01,300,30,100\n"
    ),
    "openai.json": json.dumps(
        {
            "object": "page",
            "data": [
                {
                    "object": "bucket",
                    "start_time": 1777939200,
                    "results": [
                        {"input_tokens": 100, "output_tokens": 10, "num_model_requests": 1, "model": "llama"},
                        {"input_tokens": 200, "output_tokens": 20, "num_model_requests": 1, "model": "llama"},
                    ],
                }
            ],
        }
    ),
    "anthropic.csv": (
        "usage_date_utc,model_version,api_key,workspace,usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,"
        "usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens,web_search_count\n"
        "2026-05-05,llama-20260101,k,Default,200,50,25,25,30,0\n"
    ),
    "anthropic-api.json": json.dumps(
        {
            "data": [
                {
                    "starting_at": "2026-05-05T00:00:00Z",
                    "results": [
                        {
                            "uncached_input_tokens": 250,
                            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
                            "cache_read_input_tokens": 20,
                            "output_tokens": 30,
                            "model": "llama",
                        }
                    ],
                }
            ]
        }
    ),
    "openrouter.jsonl": (
        '{"date": "2026-05-05", "model": "acme/llama", "prompt_tokens": 300, "completion_tokens": 30, "requests": 2, "usage": 0.0033}\n'
    ),
    "openrouter-activity.csv": (
        "generation_id,created_at,cost_total,tokens_prompt,tokens_completion,tokens_reasoning,model_permaslug\n"
        "g1,2026-05-05 10:00:00.1,0.0011,100,10,0,acme/llama\ng2,2026-05-05 23:00:00,0.0022,200,20,0,acme/llama\n"
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_known_layouts_are_read_without_a_map(recorded, compare, name, put, org):
    if "openrouter" not in name:
        put(model_row(org, "m-1", "mine", "https://api.together.ai/v1", "llama", revision=2))
    code, made = compare(LAYOUTS[name], name=name)
    assert (code, made["layout"], codes(made)) == (0, name.split(".")[0], [[]])


def test_a_map_names_any_columns_and_adds_them_up(recorded, compare):
    text = "Day;x,What,In,Cached,Out,N,Paid\n2026-05-05T23:00:00-02:00,ACME/LLAMA,40,10,5,1,$0.00055\n"
    code, made = compare(text, "--map", "day=Day;x,model=What,input=In+Cached,output=Out,requests=N,cost=Paid")
    assert (code, made["layout"], codes(made)) == (0, "mapped", [[]]) and made["first_day"] == "2026-05-06"
    assert compare(text, "--map", "day=Nope")[1]["code"] == compare(text, "--map", "when=Day;x")[1]["code"] == "usage_map_invalid"
    assert compare(text)[1]["code"] == "usage_layout_unknown"


@pytest.mark.parametrize(
    ("text", "name", "code", "row", "column"),
    [
        (HEADER + "2026-05-05,m,1,1,1,1\n2026-05-06,m,1,-1,1,1\n", "u.csv", "usage_file_invalid", 3, "input_tokens"),
        (HEADER + "2026-05-05,m,1.5,1,1,1\n", "u.csv", "usage_file_invalid", 2, "requests"),
        (HEADER + "05/06/2026,m,1,1,1,1\n", "u.csv", "usage_file_invalid", 2, "date"),
        (HEADER + "2026-05-05,,1,1,1,1\n", "u.csv", "usage_file_invalid", 2, "model"),
        (HEADER + "2026-05-05,m,1,1,1,NaN\n", "u.csv", "usage_file_invalid", 2, "cost"),
        (HEADER + "2026-05-05,m,1,1,1,1e999999\n", "u.csv", "usage_file_invalid", 2, "cost"),
        (HEADER + "2026-05-05,m,1,1,1\n", "u.csv", "usage_file_invalid", 2, None),
        ("date,model,requests,cost,currency\n2026-05-05,m,1,1,EUR\n", "u.csv", "usage_file_invalid", 2, "currency"),
        ('[{"date": "2026-05-05", "model": "m", "requests": true}]', "u.json", "usage_file_invalid", 1, "requests"),
        ("[1]", "u.json", "usage_file_invalid", 1, None),
        ('{"a": 1}', "u.json", "format_mismatch", None, None),
        ("{", "u.json", "format_mismatch", None, None),
        ("{}\n", "u.jsonl", "usage_layout_unknown", None, None),
        ("", "u.csv", "usage_file_invalid", None, None),
        ("x", "u.txt", "format_unknown", None, None),
    ],
)
def test_a_bad_file_is_refused_by_name_row_and_column(recorded, compare, text, name, code, row, column):
    found, told = compare(text, name=name)
    assert (found, told["code"], told["fields"].get("row"), told["fields"].get("column")) == (2, code, row, column)


def test_a_file_that_is_not_there_is_told(byok, tmp_path):
    code, shown, _ = byok("bill", "reconcile", str(tmp_path / "none.json"), "--json")
    assert code == 2 and json.loads(shown)["error"]["code"] == "file_unreadable"


CELL = st.text(max_size=12) | st.integers(-5, 10**20).map(str) | st.sampled_from(["2026-05-05", "1777939200", "0.1", "$1", "1_0", "∞"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(CELL, CELL, CELL, CELL), max_size=4), json_too=st.booleans())
def test_any_file_is_read_or_refused_by_a_named_error(rows, json_too, tmp_path_factory):
    folder = tmp_path_factory.mktemp("usage")
    path = folder / ("u.json" if json_too else "u.csv")
    if json_too:
        path.write_text(json.dumps([dict(zip(("date", "model", "requests", "cost"), row, strict=True)) for row in rows]))
    else:
        path.write_text("date,model,requests,cost\n" + "".join(",".join(row) + "\n" for row in rows), errors="surrogatepass")
    try:
        _, told = read_usage(path, {})
    except InputError as refused:
        assert refused.code != "bad_input" and refused.hint
        return
    assert all(isinstance(one.day, date) and one.requests >= 0 and isinstance(one.usd, Decimal) for one in told)


@given(st.text(max_size=30))
def test_any_map_is_read_or_refused(text):
    with suppress(BadMap):
        assert parse_map(text)
