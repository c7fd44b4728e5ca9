-- Facts without an index. DuckDB holds the index of a primary key in memory as a whole, some 60 bytes a row, and writes much of it anew
-- at every checkpoint: with a million rows of a run it no longer fits. The loader, the only writer, takes each key once instead.

CREATE TABLE sample_unindexed (
    org_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    sample_id VARCHAR NOT NULL,
    row_number BIGINT NOT NULL,
    row_id VARCHAR NOT NULL,
    row_hash VARCHAR NOT NULL,
    input VARCHAR NOT NULL,
    expected VARCHAR,
    context VARCHAR,
    output VARCHAR,
    reasoning VARCHAR,
    status VARCHAR NOT NULL,
    finish_reason VARCHAR,
    error_code VARCHAR,
    attempts BIGINT NOT NULL,
    latency_ms DOUBLE,
    prompt_tokens BIGINT,
    completion_tokens BIGINT,
    occurred_at TIMESTAMPTZ NOT NULL,
    recorded_at TIMESTAMPTZ NOT NULL,
    request_hash VARCHAR,
    reused_from VARCHAR
);
INSERT INTO sample_unindexed BY NAME SELECT * FROM sample;
DROP TABLE sample;
ALTER TABLE sample_unindexed RENAME TO sample;

CREATE TABLE attempt_unindexed (
    org_id VARCHAR NOT NULL,
    attempt_id VARCHAR NOT NULL,
    run_id VARCHAR,
    role VARCHAR NOT NULL,
    model_id VARCHAR NOT NULL,
    model_key VARCHAR NOT NULL,
    sample_id VARCHAR,
    judge VARCHAR,
    judge_version BIGINT,
    number BIGINT NOT NULL,
    status VARCHAR NOT NULL,
    error_code VARCHAR,
    http_status BIGINT,
    latency_ms DOUBLE,
    prompt_tokens BIGINT,
    completion_tokens BIGINT,
    cached_tokens BIGINT,
    reasoning_tokens BIGINT,
    usage_class VARCHAR NOT NULL,
    provider_request_id VARCHAR,
    key_version BIGINT,
    opened_at TIMESTAMPTZ NOT NULL,
    closed_at TIMESTAMPTZ,
    recorded_at TIMESTAMPTZ NOT NULL
);
INSERT INTO attempt_unindexed BY NAME SELECT * FROM attempt;
DROP TABLE attempt;
ALTER TABLE attempt_unindexed RENAME TO attempt;

CREATE TABLE verdict_unindexed (
    org_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    verdict_id VARCHAR NOT NULL,
    sample_id VARCHAR NOT NULL,
    grader VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    judge_version BIGINT,
    judge_model_key VARCHAR,
    outcome VARCHAR NOT NULL,
    score DOUBLE,
    passed BOOLEAN,
    label VARCHAR,
    reasoning VARCHAR,
    attempt_id VARCHAR,
    occurred_at TIMESTAMPTZ NOT NULL,
    recorded_at TIMESTAMPTZ NOT NULL,
    request_hash VARCHAR,
    reused_from VARCHAR
);
INSERT INTO verdict_unindexed BY NAME SELECT * FROM verdict;
DROP TABLE verdict;
ALTER TABLE verdict_unindexed RENAME TO verdict;

CREATE TABLE charge_unindexed (
    org_id VARCHAR NOT NULL,
    charge_id VARCHAR NOT NULL,
    run_id VARCHAR,
    plane VARCHAR NOT NULL,
    role VARCHAR NOT NULL,
    attempt_id VARCHAR,
    model_id VARCHAR,
    model_key VARCHAR,
    sku VARCHAR NOT NULL,
    quantity BIGINT,
    unit_price_usd_per_mtok DECIMAL(28,12),
    amount_usd DECIMAL(28,12),
    rate_micro_ecu DECIMAL(28,12),
    amount_micro_ecu BIGINT,
    price_version VARCHAR NOT NULL,
    evidence VARCHAR NOT NULL,
    occurred_at TIMESTAMPTZ NOT NULL,
    recorded_at TIMESTAMPTZ NOT NULL
);
INSERT INTO charge_unindexed BY NAME SELECT * FROM charge;
DROP TABLE charge;
ALTER TABLE charge_unindexed RENAME TO charge;
