"""Deviations of MLflow's gateway in its tracking server, all of them seen when MLflow 3.17.2 was run before a plain sandbox."""

from __future__ import annotations

from byok.sandbox.dialects.deviations.deviation import Deviation

MLFLOW = (
    Deviation("two-bases", "chat is served under /gateway/mlflow/v1 (unified) and /gateway/openai/v1 (passthrough)", "fact 10", "R"),
    Deviation("models-unified-only", "only the unified base lists models, in the order of their names, owned by mlflow", "fact 3", "R"),
    Deviation("embeddings-passthrough-only", "the unified base has no embeddings: a 404 page", "fact 60", "R"),
    Deviation("missing-page", "a wrong method and a slash at the end get the 404 page of a path that does not exist", "section 7", "R"),
    Deviation("no-key", "no key is needed, and a wrong one is ignored", "section 7", "R"),
    Deviation(
        "basic-auth", "with a key NAME:PASSWORD it asks for Basic, as X-MLflow-Authorization too, which counts first", "fact 12", "R"
    ),
    Deviation(
        "login-first", "with logins, a path that does not exist gets 401; outside the gateway only Authorization counts", "section 7", "R"
    ),
    Deviation("foreign-host", "a foreign Host header gets 403 as text; this host and private addresses are let in", "section 7", "R"),
    Deviation("upstream-model", "answers and errors name the upstream's model, not the endpoint", "section 7", "R"),
    Deviation("drops", "the unified base drops logprobs, reasoning and refusals, and adds provider", "facts 42 and 47", "R"),
    Deviation("null-members", "tool_calls and refusal are always there, null without a value", "section 7", "R"),
    Deviation("null-deltas", "each chunk of the unified base has usage, and each delta role, content and tool_calls", "section 7", "R"),
    Deviation("null-usage", "a usage that is missing, or lacks counts, gets counts that are null", "fact 36", "R"),
    Deviation("usage-unasked", "a stream ends with usage, unless include_usage is false", "section 7", "R"),
    Deviation("no-upstream-headers", "no rate-limit, Retry-After or request id header comes through", "fact 35", "R"),
    Deviation(
        "detail-error", "an upstream error becomes {detail: message} with the same status, one of another form {detail: it}", "fact 16", "R"
    ),
    Deviation("unsupported-502", "a page of the upstream becomes a 502 whose detail names its content type", "section 7", "R"),
    Deviation(
        "hidden-500",
        "an error that is a text (vLLM's 401), a cut answer and, unified, one of a wrong form get a text 500",
        "section 7",
        "R",
    ),
    Deviation("detail-object", "an unknown endpoint gets 404 with {detail: {error_code, message}}", "fact 18", "R"),
    Deviation("detail-400", "a body that is no JSON, and one without a model, get 400 with a detail text", "section 7", "R"),
    Deviation("payload-400", "a chat of a wrong form gets 400 with a detail text of pydantic; stop has to be a list", "section 7", "R"),
    Deviation("shallow-tools", "the unified base sends on the first level of a tool's schema, which needs properties", "section 7", "R"),
    Deviation("stream-200-error", "an upstream error before the first token is a 200 stream with one error frame", "facts 21 and 50", "R"),
    Deviation("key-error", "the unified base turns an error in a running stream into a KeyError frame", "fact 50", "R"),
    Deviation("cut-error", "a stream that the upstream cuts ends with a ClientPayloadError frame", "section 7", "R"),
    Deviation("no-done", "the unified base ends a stream without [DONE]", "fact 49", "R"),
    Deviation("no-comments", "the unified base drops comment lines of a stream", "fact 49", "R"),
)
