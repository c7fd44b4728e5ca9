"""Deviations of what people run themselves: servers, gateways and proxies."""

from __future__ import annotations

from byok.sandbox.dialects.deviations.deviation import Deviation

VLLM = (
    Deviation("max-model-len", "a model of the list tells its context as max_model_len, and has root, parent, permission", "fact 5", "S"),
    Deviation("string-401", "a wrong key gets {error: Unauthorized}, a text, and no WWW-Authenticate", "fact 15", "S"),
    Deviation("open-health", "/health, /version and /metrics need no key", "fact 4", "S"),
    Deviation("integer-code", "errors have the status as integer code", "fact 14", "S"),
    Deviation("form-400", "a body of a wrong form gets 400 with the type Bad Request and all its problems", "section 2", "S"),
    Deviation("named-value", "a wrong parameter is named with its value in the message", "section 2", "S"),
    Deviation("detail-404", "an unknown route or method gets {detail}", "fact 16", "R"),
    Deviation("no-embedding-route", "without embeddings, their route does not exist", "fact 60", "S"),
    Deviation("model-optional", "a request needs no model", "section 2", "S"),
    Deviation("json-only", "another content type than JSON gets 400", "section 2", "S"),
    Deviation("guided-ignored", "the removed guided_* members are accepted without effect", "fact 56", "S"),
    Deviation("structured-outputs", "structured_outputs constrains the answer", "section 2", "S"),
    Deviation("limit-lowered", "a limit over the room left is lowered silently, possibly to 0", "section 2", "S"),
    Deviation("limit-over-model", "a limit over the model's context gets 400", "fact 23", "S"),
    Deviation("overflow-text", "a prompt that is too long gets 400 with the parameter input_tokens", "fact 23", "S"),
    Deviation("auto-tools-flag", "tool_choice auto is refused, naming the two flags of the server", "section 2", "S"),
    Deviation("named-stop", "a call by a named choice ends with stop", "fact 46", "S"),
    Deviation("null-extras", "an answer has many members that are null", "section 2", "S"),
    Deviation("null-details", "usage has prompt_tokens_details: null", "fact 40", "S"),
    Deviation("null-content", "content is null when reasoning used up the limit", "fact 43", "S"),
    Deviation("reasoning", "reasoning comes in reasoning", "fact 42", "S"),
    Deviation("usage-last", "the usage of a stream stands on a last chunk without choices", "fact 37", "S"),
    Deviation("continuous-usage", "with continuous_usage_stats each chunk has usage", "fact 37", "S"),
    Deviation("frame-and-done", "an error in a stream is a frame, and [DONE] follows", "fact 50", "S"),
    Deviation("keep-alive", "comment lines stand between the events of a stream", "fact 49", "S"),
    Deviation("matryoshka", "dimensions are refused, naming Matryoshka", "section 2", "S"),
    Deviation("embedding-extras", "embeddings have an id, a time, and usage with completion_tokens: 0", "section 2", "S"),
    Deviation("no-limit-headers", "there are no rate-limit headers and no Retry-After", "fact 35", "S"),
)

PROXY = (
    Deviation("prefix", "the API lies under /serve/v1", "fact 10", "R"),
    Deviation("no-slash-301", "/serve/v1 without a slash is a 301 page", "fact 11", "R"),
    Deviation("unprefixed-404", "any other path is a 404 page", "fact 20", "R"),
    Deviation("x-api-key", "the key comes as X-API-Key; a Bearer key opens nothing", "fact 12", "R"),
    Deviation("message-401", "a missing key gets 401 with {message} as JSON that is labelled text/plain", "fact 19", "R"),
    Deviation("html-errors", "502, 503 and 504 are pages", "facts 20 and 30", "R"),
    Deviation("no-retry-after", "503 comes without Retry-After", "section 8", "R"),
    Deviation("html-413", "a body over 1 MiB gets a 413 page", "fact 20", "R"),
    Deviation("buffered", "a stream's events arrive all at its end", "fact 52", "R"),
    Deviation("cut", "a cut upstream is an incomplete body", "fact 51", "R"),
)
