"""Wire facts 14 to 30: the shapes of errors, what they mean, and whether they may be tried again."""

from __future__ import annotations

import json

import pytest

from byok.endpoint import EndpointError, probe
from byok.engine.retry import RetryPolicy
from byok_testing.asking import KEY, MODEL, chat, completion, refused, using
from byok_testing.raw_server import http


def error_of(serve, status, body=b"", *, provider=None, **options):
    return refused(lambda: chat(serve(http(status, body, **options)), provider=provider))


def openai(message="no", *, kind="invalid_request_error", param=None, code=None):
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def test_fact_14_an_error_object_with_a_number_as_its_code(serve):
    body = {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}}
    error = error_of(serve, 404, body)
    assert (error.code, error.fields["remote_code"], error.status) == ("model_not_found", "404", 404)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, {"error": "Unauthorized"}, "endpoint_auth"),
        (429, {"error": "Rate limit exceeded: 2 per 1 minute"}, "endpoint_rate_limited"),
        (422, {"error": "`temperature` must be strictly positive", "error_type": "validation"}, "bad_request"),
    ],
)
def test_fact_15_an_error_that_is_a_text(serve, status, body, code):
    error = error_of(serve, status, body)
    assert error.code == code and body["error"] in error.message


def test_fact_16_a_detail_that_is_a_text(serve):
    error = error_of(serve, 400, {"detail": "Invalid chat payload: 1 validation error"})
    assert error.code == "bad_request" and "1 validation error" in error.message


def test_fact_17_a_detail_that_is_a_list_of_problems(serve):
    branches = [
        {"type": "literal_error", "loc": ["body", "reasoning_effort", f"literal['{one}']"], "msg": f"Input should be '{one}'"}
        for one in ("none", "low", "high")
    ]
    error = error_of(serve, 422, {"detail": branches})
    assert (error.code, error.parameter) == ("bad_request", "reasoning_effort.literal['none']")
    assert all(one in error.message for one in ("'none'", "'low'", "'high'"))


@pytest.mark.parametrize(
    "detail", [{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no endpoint 'x'"}, {"message": "no endpoint 'x'"}]
)
def test_fact_18_a_detail_that_is_an_object(serve, detail):
    error = error_of(serve, 404, {"detail": detail})
    assert "no endpoint 'x'" in error.message
    assert error.code == ("model_not_found" if "error_code" in detail else "endpoint_not_openai")


def test_fact_19_a_bare_message_and_json_under_another_label(serve):
    error = error_of(serve, 401, json.dumps({"message": "No API key found in request"}), kind="text/plain")
    assert error.code == "endpoint_auth" and "No API key found in request" in error.message
    assert "--auth header" in error.hint


PAGE = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><center><h1>502 Bad Gateway</h1></center><hr>nginx/1.22.1</body></html>"
)


@pytest.mark.parametrize(
    ("status", "body", "code", "again"),
    [
        (502, PAGE, "endpoint_overloaded", True),
        (504, PAGE.replace("502 Bad Gateway", "504 Gateway Time-out"), "endpoint_timeout", True),
        (413, PAGE.replace("502 Bad Gateway", "413 Request Entity Too Large"), "context_length", False),
        (404, PAGE.replace("502 Bad Gateway", "404 Not Found"), "endpoint_not_openai", False),
        (400, PAGE.replace("502 Bad Gateway", "The plain HTTP request was sent to HTTPS port"), "endpoint_not_openai", False),
        (502, "", "endpoint_overloaded", True),
        (403, "", "endpoint_forbidden", False),
    ],
)
def test_fact_20_pages_and_nothing_at_all(serve, status, body, code, again):
    error = error_of(serve, status, body, kind="text/html")
    assert (error.code, error.status, error.retryable) == (code, status, again)
    assert "<" not in error.message and len(error.message) < 400


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ("<!doctype html><title>Sign in</title>", "text/html", "endpoint_not_openai"),
        (json.dumps({"error": {"message": "no", "code": "insufficient_quota"}}), "text/html", "endpoint_credit"),
        (json.dumps({"error": {"message": "no", "code": "rate_limit_exceeded"}}), "application/json", "endpoint_rate_limited"),
        ("<html><title>Sign in</title></html>", "application/json", "endpoint_not_openai"),
        (json.dumps({"error": {"message": "429: slow down", "type": "HTTPException"}}), "application/json", "endpoint_rate_limited"),
        (json.dumps({"error": {"message": "boom", "code": 500}}), "application/json", "endpoint_overloaded"),
        (json.dumps({"detail": "not now"}), "application/json", "endpoint_overloaded"),
    ],
)
def test_fact_21_a_failure_under_status_200(serve, body, kind, code):
    assert error_of(serve, 200, body, kind=kind).code == code


def test_fact_21_json_under_a_pages_label_is_json(serve):
    assert chat(serve(http(200, completion(), kind="text/html"))).text == "OK"
    gone = openai("no such model", param="model", code="model_not_found")
    assert error_of(serve, 404, gone, kind="text/html").code == "model_not_found"


@pytest.mark.parametrize(
    ("status", "code"),
    [*((status, "endpoint_timeout") for status in (408, 499, 504)), (409, "endpoint_overloaded"), (425, "endpoint_overloaded")],
)
def test_fact_20_statuses_of_who_gave_up_or_is_not_ready(serve, status, code):
    error = error_of(serve, status)
    assert (error.code, error.retryable) == (code, True)


@pytest.mark.parametrize("name", ["x-request-id", "x-together-request-id", "x-inference-id", "cf-ray"])
def test_fact_22_ids_of_requests(serve, name):
    assert error_of(serve, 400, openai(), **{name: "id-7"}).fields["request_id"] == "id-7"
    assert chat(serve(http(200, completion(), **{name: "id-7"}))).request_id == "id-7"
    assert error_of(serve, 400, {**openai(), "request_id": "id-8"}).fields["request_id"] == "id-8"
    assert chat(serve(http(200, completion(request_id="id-9")))).request_id == "id-9"


TOO_LONG = [
    (
        400,
        openai("This model's maximum context length is 4096 tokens. However, your prompt contains 5000 input tokens", param="input_tokens"),
    ),
    (400, openai("max_tokens=9000 cannot be greater than max_model_len=4096", param="max_tokens", code=400)),
    (400, openai("too long", code="context_length_exceeded")),
    (403, openai("The prompt and max_tokens exceed the maximum context length of 8192")),
    (422, {"error": "`inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens", "error_type": "validation"}),
    (400, {"detail": "The prompt is too long: 9000, model maximum context length: 8192"}),
]


@pytest.mark.parametrize(("status", "body"), TOO_LONG)
def test_fact_23_a_prompt_that_is_too_long_under_any_status(serve, status, body):
    error = error_of(serve, status, body)
    assert (error.code, error.retryable, error.stops_run) == ("context_length", False, False)


def test_fact_24_a_403_alone_is_no_proof_of_a_bad_key(serve):
    error = error_of(serve, 403, openai("forbidden"))
    assert (error.code, error.stops_run) == ("endpoint_forbidden", False)
    rebinding = error_of(serve, 403, "Invalid Host header - possible DNS rebinding attack detected", kind="text/plain")
    assert rebinding.code == "endpoint_forbidden" and "--allowed-hosts" in rebinding.hint


@pytest.mark.parametrize("status", [402, 412])
def test_fact_25_states_of_an_account(serve, status):
    error = error_of(serve, status, openai("Account suspended"))
    assert (error.code, error.retryable, error.stops_run) == ("endpoint_credit", False, True)
    assert "billing" in error.hint


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (410, openai("Model is deprecated", code="model_deprecated"), "model_not_found"),
        (400, openai("Model not found", code="model_not_found"), "model_not_found"),
        (404, openai("The model does not exist", kind="NotFoundError", param="model", code=404), "model_not_found"),
        (404, {"detail": {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "GatewayEndpoint not found"}}, "model_not_found"),
        (404, {"detail": "Not Found"}, "endpoint_not_openai"),
        (405, {"detail": "Method Not Allowed"}, "endpoint_not_openai"),
        (404, "<html><title>404 Not Found</title></html>", "endpoint_not_openai"),
    ],
)
def test_fact_26_a_model_that_is_gone_and_a_route_that_is_not_there(serve, status, body, code):
    error = error_of(serve, status, body)
    assert error.code == code
    assert (MODEL in error.message) == (code == "model_not_found")


def test_fact_27_a_deployment_that_is_starting(serve):
    error = error_of(serve, 503, openai("scaling up", code="DEPLOYMENT_SCALING_UP"))
    assert (error.code, error.retryable, error.stops_run) == ("endpoint_cold", True, False)
    policy = RetryPolicy(jitter=lambda: 1.0)
    waits = [policy.wait_s(error, attempt) for attempt in range(1, 61)]
    assert sum(wait or 0 for wait in waits) >= 10 * 60 and waits[-1] is None
    # Its time is no latency: the failed attempt has none.
    assert "latency_ms" not in error.fields


@pytest.mark.parametrize(
    ("provider", "headers", "code"),
    [
        ("sambanova", {}, "endpoint_rate_limited"),
        (None, {"x-ratelimit-limit-requests": "60"}, "endpoint_rate_limited"),
        (None, {"retry-after": "2"}, "endpoint_rate_limited"),
        (None, {}, "endpoint_credit"),
    ],
)
def test_fact_28_a_rate_limit_that_calls_itself_quota(serve, provider, headers, code):
    assert error_of(serve, 429, openai("exceeded", code="insufficient_quota"), provider=provider, **headers).code == code


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (429, openai("slow down", kind="dynamic_request_limited"), "endpoint_rate_limited"),
        (503, openai("no capacity", kind="service_unavailable"), "endpoint_overloaded"),
        (429, openai("queue full", code="queue_full"), "endpoint_rate_limited"),
    ],
)
def test_fact_29_our_rate_and_their_capacity_are_two_things(serve, status, body, code):
    error = error_of(serve, status, body)
    assert (error.code, error.retryable, error.stops_run) == (code, True, False)


def test_fact_30_a_proxys_page_may_be_its_rate_limit(serve):
    page = "<html><head><title>503 Service Temporarily Unavailable</title></head></html>"
    error = error_of(serve, 503, page, kind="text/html")
    assert (error.code, error.retryable, error.retry_after_s) == ("endpoint_overloaded", True, None)
    assert "limit the rate" in error.hint


def test_every_error_says_whether_it_may_be_tried_again():
    kinds = [kind for kind in all_kinds(EndpointError) if kind.__module__ == "byok.endpoint.errors"]
    again = {kind.code for kind in kinds if kind.retryable}
    assert again == {
        *("endpoint_rate_limited", "endpoint_overloaded", "endpoint_cold", "endpoint_timeout", "endpoint_unreachable", "response_truncated")
    }
    assert {"endpoint_auth", "endpoint_credit", "model_not_found", "bad_request", "endpoint_tls", "endpoint_not_openai"} <= {
        kind.code for kind in kinds if kind.stops_run
    }
    assert not [kind for kind in kinds if kind.retryable and kind.stops_run]


def all_kinds(kind):
    return [kind, *(found for sub in kind.__subclasses__() for found in all_kinds(sub))]


def test_a_server_that_hides_a_refused_key_behind_500_gets_a_hint(serve):
    # MLflow's gateway before a vLLM that refuses its key (run for real).
    error = error_of(serve, 500, "Internal Server Error", kind="text/plain")
    assert error.code == "endpoint_overloaded" and "refused key" in error.hint


def test_a_probe_names_the_models_that_are_there(serve):
    listed = http(200, {"object": "list", "data": [{"id": "org/Model#slow:1"}, {"id": "other"}]})
    server = serve(listed, http(404, openai("no such model", param="model", code="model_not_found")))
    error = refused(lambda: using(server, probe))
    assert error.code == "model_not_found" and "org/Model#slow:1" in error.hint and KEY not in error.hint


def test_fact_18_a_detail_inside_a_detail(serve):
    inner = [{"loc": ["body", "temperature"], "msg": "Input should be less than or equal to 2", "type": "less_than_equal"}]
    error = error_of(serve, 422, {"detail": {"detail": inner}})
    assert (error.code, error.parameter) == ("bad_request", "temperature")


def test_fact_16_the_parameter_in_a_validators_own_words(serve):
    words = "Invalid chat payload: 1 validation error for RequestPayload\nresponse_format.json_schema.name\n  Field required [type=missing]"
    assert error_of(serve, 400, {"detail": words}).parameter == "response_format.json_schema.name"


def test_fact_12_a_gateways_own_key_is_not_ours(serve):
    error = error_of(serve, 401, {"detail": "invalid api key"}, provider="mlflow")
    assert error.code == "endpoint_auth" and "gateway" in error.hint


def test_fact_14_a_parameter_with_its_place(serve):
    body = {"error": {"message": "Input should be greater than 0", "type": "Bad Request", "param": "body.max_tokens", "code": 400}}
    assert error_of(serve, 400, body).parameter == "max_tokens"
