-- Endpoints: the provider's profile, what may be seen of credentials, the health of models, and the history of probes.

ALTER TABLE model ADD COLUMN provider VARCHAR;
ALTER TABLE model ADD COLUMN auth VARCHAR;
ALTER TABLE model ADD COLUMN health VARCHAR;
ALTER TABLE model ADD COLUMN checked_at TIMESTAMPTZ;

CREATE TABLE probe (
    org_id VARCHAR NOT NULL,
    probe_id VARCHAR NOT NULL,
    model_id VARCHAR NOT NULL,
    model_key VARCHAR NOT NULL,
    cause VARCHAR NOT NULL,
    scope VARCHAR NOT NULL,
    status VARCHAR NOT NULL,
    error_code VARCHAR,
    error_message VARCHAR,
    health VARCHAR NOT NULL,
    failures BIGINT NOT NULL,
    latency_ms DOUBLE,
    ttft_ms DOUBLE,
    requests BIGINT NOT NULL,
    prompt_tokens BIGINT,
    completion_tokens BIGINT,
    started_at TIMESTAMPTZ NOT NULL,
    recorded_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (org_id, probe_id)
);

CREATE TABLE capability (
    org_id VARCHAR NOT NULL,
    probe_id VARCHAR NOT NULL,
    capability VARCHAR NOT NULL,
    model_id VARCHAR NOT NULL,
    model_key VARCHAR NOT NULL,
    outcome VARCHAR NOT NULL,
    declared BOOLEAN NOT NULL,
    value VARCHAR,
    evidence VARCHAR NOT NULL,
    latency_ms DOUBLE,
    http_status BIGINT,
    error_code VARCHAR,
    probed_at TIMESTAMPTZ NOT NULL,
    recorded_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (org_id, probe_id, capability)
);

CREATE OR REPLACE VIEW v1.models AS SELECT org_id, model_id, revision, key, name, description, base_url, remote_id, tags, public, max_tokens, price_input_usd_per_mtok, price_output_usd_per_mtok, status, key_mask, capabilities, updated_at, recorded_at, provider, auth, health, checked_at FROM main.model;
COMMENT ON VIEW v1.models IS 'Registered models, each in its latest revision; never a key.';
COMMENT ON COLUMN v1.models.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.models.model_id IS 'Model; UUID.';
COMMENT ON COLUMN v1.models.revision IS 'Goes up with every change; the highest counts.';
COMMENT ON COLUMN v1.models.key IS 'Key (slug) of the model.';
COMMENT ON COLUMN v1.models.name IS 'Display name.';
COMMENT ON COLUMN v1.models.description IS 'Description.';
COMMENT ON COLUMN v1.models.base_url IS 'Base URL of the endpoint.';
COMMENT ON COLUMN v1.models.remote_id IS 'What the endpoint calls the model.';
COMMENT ON COLUMN v1.models.tags IS 'Capability tags.';
COMMENT ON COLUMN v1.models.public IS 'Whether it is served under the platform''s key; its tokens are then billed in ECU.';
COMMENT ON COLUMN v1.models.max_tokens IS 'Most tokens of one answer; NULL leaves it to the endpoint.';
COMMENT ON COLUMN v1.models.price_input_usd_per_mtok IS 'Registered price in USD per million input tokens; NULL when unknown.';
COMMENT ON COLUMN v1.models.price_output_usd_per_mtok IS 'Registered price in USD per million output tokens; NULL when unknown.';
COMMENT ON COLUMN v1.models.status IS 'active or disabled.';
COMMENT ON COLUMN v1.models.key_mask IS 'What is shown of the key: vendor prefix and at most four characters.';
COMMENT ON COLUMN v1.models.capabilities IS 'What the last probe found (JSON).';
COMMENT ON COLUMN v1.models.updated_at IS 'Time of the latest change (UTC).';
COMMENT ON COLUMN v1.models.recorded_at IS 'When the row was written down (UTC).';
COMMENT ON COLUMN v1.models.provider IS 'Provider profile that was chosen; NULL: the base URL decides.';
COMMENT ON COLUMN v1.models.auth IS 'What may be seen of its credentials (JSON): scheme, names of headers, fingerprints; NULL when it needs none.';
COMMENT ON COLUMN v1.models.health IS 'unknown, ok, degraded or unreachable, by the checks in a row; NULL before there were any.';
COMMENT ON COLUMN v1.models.checked_at IS 'When the last check ended (UTC).';

CREATE VIEW v1.probes AS SELECT org_id, probe_id, model_id, model_key, cause, scope, status, error_code, error_message, health, failures, latency_ms, ttft_ms, requests, prompt_tokens, completion_tokens, started_at, recorded_at FROM main.probe;
COMMENT ON VIEW v1.probes IS 'History of probes outside runs: whether a model answered, and what its health was after that.';
COMMENT ON COLUMN v1.probes.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.probes.probe_id IS 'Probe; UUID.';
COMMENT ON COLUMN v1.probes.model_id IS 'Model; UUID.';
COMMENT ON COLUMN v1.probes.model_key IS 'Key (slug) of the model.';
COMMENT ON COLUMN v1.probes.cause IS 'Why it was made: register, update, command or schedule.';
COMMENT ON COLUMN v1.probes.scope IS 'basic (does it answer) or full (what can it do).';
COMMENT ON COLUMN v1.probes.status IS 'ok or failed.';
COMMENT ON COLUMN v1.probes.error_code IS 'Named error of a failed one; NULL otherwise.';
COMMENT ON COLUMN v1.probes.error_message IS 'What that error said.';
COMMENT ON COLUMN v1.probes.health IS 'Health of the model after it: unknown, ok, degraded or unreachable.';
COMMENT ON COLUMN v1.probes.failures IS 'Failed probes in a row, this one included.';
COMMENT ON COLUMN v1.probes.latency_ms IS 'Latency of the answered request in milliseconds; NULL when none was answered.';
COMMENT ON COLUMN v1.probes.ttft_ms IS 'Time to the first token in milliseconds, of a full probe whose stream was not buffered on its way; NULL otherwise.';
COMMENT ON COLUMN v1.probes.requests IS 'Requests to the model; the list of models is not one.';
COMMENT ON COLUMN v1.probes.prompt_tokens IS 'Prompt tokens of all of them; NULL when one did not say.';
COMMENT ON COLUMN v1.probes.completion_tokens IS 'Completion tokens of all of them; NULL when one did not say.';
COMMENT ON COLUMN v1.probes.started_at IS 'When it began (UTC).';
COMMENT ON COLUMN v1.probes.recorded_at IS 'When the row was written down (UTC).';

CREATE VIEW v1.capabilities AS SELECT org_id, probe_id, capability, model_id, model_key, outcome, declared, value, evidence, latency_ms, http_status, error_code, probed_at, recorded_at, row_number() OVER (PARTITION BY org_id, model_id, capability ORDER BY probed_at DESC, probe_id DESC) = 1 AS latest FROM main.capability;
COMMENT ON VIEW v1.capabilities IS 'What full probes found, one row for each capability and probe.';
COMMENT ON COLUMN v1.capabilities.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.capabilities.probe_id IS 'Probe; UUID.';
COMMENT ON COLUMN v1.capabilities.capability IS 'chat, streaming, embeddings, json_mode, json_schema, tools, logprobs, system_role, vision, context_length or reasoning.';
COMMENT ON COLUMN v1.capabilities.model_id IS 'Model; UUID.';
COMMENT ON COLUMN v1.capabilities.model_key IS 'Key (slug) of the model.';
COMMENT ON COLUMN v1.capabilities.outcome IS 'supported, unsupported, ignored (accepted without effect: not supported), unknown or untested.';
COMMENT ON COLUMN v1.capabilities.declared IS 'Whether a tag of the model claimed it at that time.';
COMMENT ON COLUMN v1.capabilities.value IS 'A measure where there is one: tokens of context, dimensions of a vector; NULL otherwise.';
COMMENT ON COLUMN v1.capabilities.evidence IS 'What was seen, in words.';
COMMENT ON COLUMN v1.capabilities.latency_ms IS 'Latency of the request that showed it, in milliseconds; NULL when none did.';
COMMENT ON COLUMN v1.capabilities.http_status IS 'HTTP status of that request; NULL when there was none.';
COMMENT ON COLUMN v1.capabilities.error_code IS 'Named error of that request; NULL when it was answered.';
COMMENT ON COLUMN v1.capabilities.probed_at IS 'When that was (UTC).';
COMMENT ON COLUMN v1.capabilities.recorded_at IS 'When the row was written down (UTC).';
COMMENT ON COLUMN v1.capabilities.latest IS 'Whether no later probe looked at this capability of the model.';

COMMENT ON COLUMN v1.attempts.role IS 'What the request was for: candidate, embedding, judge or probe.';
COMMENT ON COLUMN v1.charges.role IS 'What the request was for: candidate, embedding, judge or probe.';
COMMENT ON COLUMN v1.daily_cost.role IS 'What the request was for: candidate, embedding, judge or probe.';
COMMENT ON COLUMN v1.verdicts.attempt_id IS 'The judge''s request; for a code grader the request that was graded, for embedding_similarity its own.';
