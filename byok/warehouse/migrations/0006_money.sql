-- Money: what each charge was reckoned from, the ledger, closed months, and what people ask of them.

ALTER TABLE attempt ADD COLUMN reported_cost_usd DECIMAL(28,12);

ALTER TABLE charge ADD COLUMN unit VARCHAR;
ALTER TABLE charge ADD COLUMN token_type VARCHAR;
ALTER TABLE charge ADD COLUMN unit_price_usd DECIMAL(28,12);
ALTER TABLE charge ADD COLUMN price_units BIGINT;
ALTER TABLE charge ADD COLUMN price_source VARCHAR;
ALTER TABLE charge ADD COLUMN corrects VARCHAR;
UPDATE charge SET
    unit = CASE WHEN sku = 'judge_call' THEN 'call' ELSE 'token' END,
    token_type = CASE WHEN sku = 'judge_call' THEN NULL ELSE split_part(sku, '/', 2) END,
    unit_price_usd = unit_price_usd_per_mtok,
    price_units = CASE WHEN unit_price_usd_per_mtok IS NULL THEN NULL ELSE 1000000 END,
    price_source = CASE WHEN plane = 'ecu' THEN 'rate_card' WHEN unit_price_usd_per_mtok IS NULL THEN 'none' ELSE 'own' END;

CREATE TABLE credit_grant (
    org_id VARCHAR NOT NULL,
    grant_id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    priority BIGINT NOT NULL,
    micro_ecu BIGINT NOT NULL,
    paid_usd DECIMAL(28,12),
    note VARCHAR NOT NULL,
    effective_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    recorded_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (org_id, grant_id)
);

CREATE TABLE ledger_entry (
    org_id VARCHAR NOT NULL,
    entry_id VARCHAR NOT NULL,
    transaction_id VARCHAR NOT NULL,
    seq BIGINT NOT NULL,
    number BIGINT NOT NULL,
    kind VARCHAR NOT NULL,
    operation VARCHAR NOT NULL,
    account VARCHAR NOT NULL,
    grant_id VARCHAR,
    hold_id VARCHAR,
    run_id VARCHAR,
    micro_ecu BIGINT NOT NULL,
    reverses VARCHAR,
    member_id VARCHAR,
    mac VARCHAR NOT NULL,
    occurred_at TIMESTAMPTZ NOT NULL,
    recorded_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (org_id, entry_id)
);

CREATE TABLE closed_month (
    org_id VARCHAR NOT NULL,
    month VARCHAR NOT NULL,
    closed_at TIMESTAMPTZ NOT NULL,
    member_id VARCHAR NOT NULL,
    charges BIGINT NOT NULL,
    provider_usd DECIMAL(28,12) NOT NULL,
    unpriced_charges BIGINT NOT NULL,
    micro_ecu BIGINT NOT NULL,
    recorded_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (org_id, month)
);

CREATE OR REPLACE VIEW v1.attempts AS
SELECT org_id, attempt_id, run_id, role, model_id, model_key, sample_id, judge, judge_version, number, status, error_code, http_status,
    latency_ms, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, usage_class, provider_request_id, key_version, opened_at,
    closed_at, recorded_at, reported_cost_usd
FROM main.attempt;
COMMENT ON VIEW v1.attempts IS 'Requests to endpoints, failed and retried ones included.';
COMMENT ON COLUMN v1.attempts.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.attempts.attempt_id IS 'Attempt: one request; UUID.';
COMMENT ON COLUMN v1.attempts.run_id IS 'Run; NULL for a probe outside a run.';
COMMENT ON COLUMN v1.attempts.role IS 'What the request was for: candidate, scorer, embedding, judge, probe or optimisation.';
COMMENT ON COLUMN v1.attempts.model_id IS 'Model; UUID.';
COMMENT ON COLUMN v1.attempts.model_key IS 'Key (slug) of the model.';
COMMENT ON COLUMN v1.attempts.sample_id IS 'Sample that it served; NULL for a probe.';
COMMENT ON COLUMN v1.attempts.judge IS 'Name of the judge, for role judge.';
COMMENT ON COLUMN v1.attempts.judge_version IS 'Version of the judge; NULL for code graders and other requests.';
COMMENT ON COLUMN v1.attempts.number IS '1 is the first attempt.';
COMMENT ON COLUMN v1.attempts.status IS 'ok, error, or lost (sent, perhaps, and never closed: cost unknown).';
COMMENT ON COLUMN v1.attempts.error_code IS 'Named error, when there was one.';
COMMENT ON COLUMN v1.attempts.http_status IS 'HTTP status; NULL when there was no HTTP answer.';
COMMENT ON COLUMN v1.attempts.latency_ms IS 'From sending the request to the last byte of the answer, in milliseconds.';
COMMENT ON COLUMN v1.attempts.prompt_tokens IS 'Tokens of the prompt as the endpoint reported them; NULL when it did not.';
COMMENT ON COLUMN v1.attempts.completion_tokens IS 'Tokens of the answer as the endpoint reported them; NULL when it did not.';
COMMENT ON COLUMN v1.attempts.cached_tokens IS 'Part of the prompt tokens that came from a cache, where told.';
COMMENT ON COLUMN v1.attempts.reasoning_tokens IS 'Part of the completion tokens that were reasoning, where told.';
COMMENT ON COLUMN v1.attempts.usage_class IS 'reported, missing, or invalid (negative or not adding up).';
COMMENT ON COLUMN v1.attempts.provider_request_id IS 'The provider''s id of the request.';
COMMENT ON COLUMN v1.attempts.key_version IS 'Version of the model''s key that was used.';
COMMENT ON COLUMN v1.attempts.opened_at IS 'Before it was sent (UTC).';
COMMENT ON COLUMN v1.attempts.closed_at IS 'After its answer (UTC); NULL when lost.';
COMMENT ON COLUMN v1.attempts.recorded_at IS 'When the row was written down (UTC).';
COMMENT ON COLUMN v1.attempts.reported_cost_usd IS 'What the endpoint says that the request cost, in USD; NULL when it says nothing.';

CREATE OR REPLACE VIEW v1.charges AS
SELECT c.org_id, c.charge_id, c.run_id, c.plane, c.role, c.attempt_id, c.model_id, c.model_key, c.sku, c.quantity,
    c.unit_price_usd_per_mtok, c.amount_usd, c.rate_micro_ecu, c.amount_micro_ecu, c.price_version, c.evidence, c.occurred_at,
    c.recorded_at, c.unit, c.token_type, c.unit_price_usd, c.price_units, c.price_source, c.corrects,
    CASE WHEN c.corrects IS NOT NULL OR m.month IS NOT NULL THEN 'correction' END AS charge_class,
    CASE WHEN m.month IS NOT NULL THEN strftime(c.recorded_at AT TIME ZONE 'UTC', '%Y-%m')
        ELSE strftime(c.occurred_at AT TIME ZONE 'UTC', '%Y-%m') END AS billing_month
FROM main.charge c
LEFT JOIN main.closed_month m
    ON m.org_id = c.org_id AND m.month = strftime(c.occurred_at AT TIME ZONE 'UTC', '%Y-%m') AND c.recorded_at > m.closed_at;
COMMENT ON VIEW v1.charges IS 'Lines of the two bills.';
COMMENT ON COLUMN v1.charges.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.charges.charge_id IS 'Charge; UUID of its natural key, so it is never billed twice.';
COMMENT ON COLUMN v1.charges.run_id IS 'Run; NULL outside a run.';
COMMENT ON COLUMN v1.charges.plane IS 'provider (USD, on the owner''s own account) or ecu (what the platform charges).';
COMMENT ON COLUMN v1.charges.role IS 'What the request was for: candidate, scorer, embedding, judge, probe or optimisation.';
COMMENT ON COLUMN v1.charges.attempt_id IS 'Attempt: one request; UUID.';
COMMENT ON COLUMN v1.charges.model_id IS 'Model; UUID.';
COMMENT ON COLUMN v1.charges.model_key IS 'Key (slug) of the model.';
COMMENT ON COLUMN v1.charges.sku IS 'What is charged: tokens/input, tokens/cached_input, tokens/output, tokens/reasoning, gpu_time, judge_call, inference/input or inference/output.';
COMMENT ON COLUMN v1.charges.quantity IS 'How many units; NULL when unknown.';
COMMENT ON COLUMN v1.charges.unit_price_usd_per_mtok IS 'Price in USD per million tokens, copied at billing; NULL when unknown, for what is not tokens, and on the ECU plane.';
COMMENT ON COLUMN v1.charges.amount_usd IS 'Amount in USD; NULL when unknown, never 0 for unknown.';
COMMENT ON COLUMN v1.charges.rate_micro_ecu IS 'Micro-ECU per unit, copied at billing; NULL on the provider plane.';
COMMENT ON COLUMN v1.charges.amount_micro_ecu IS 'Amount in whole micro-ECU; NULL on the provider plane or when unknown.';
COMMENT ON COLUMN v1.charges.price_version IS 'Which price was used: an entry of the price book, a version of genai-prices, or a rate card.';
COMMENT ON COLUMN v1.charges.evidence IS 'reported (the endpoint told the cost), computed (known units and a price), estimated (a share of GPU time) or unknown.';
COMMENT ON COLUMN v1.charges.occurred_at IS 'When it happened (UTC).';
COMMENT ON COLUMN v1.charges.recorded_at IS 'When the row was written down (UTC).';
COMMENT ON COLUMN v1.charges.unit IS 'What quantity counts: token, call, or gpu_microsecond (a share of the time for which a GPU was busy).';
COMMENT ON COLUMN v1.charges.token_type IS 'input (not cached), cached_input, output (what is read) or reasoning; each token is in one of them. NULL: not tokens.';
COMMENT ON COLUMN v1.charges.unit_price_usd IS 'USD for price_units units; NULL when unknown, when the endpoint told the cost itself, and on the ECU plane.';
COMMENT ON COLUMN v1.charges.price_units IS 'How many units unit_price_usd buys; NULL with it.';
COMMENT ON COLUMN v1.charges.price_source IS 'own (set by the owner), listed (genai-prices), endpoint (the endpoint told the cost), rate_card (ECU) or none.';
COMMENT ON COLUMN v1.charges.corrects IS 'Charge that this one corrects: its amount comes on top of that one''s; NULL: it stands by itself.';
COMMENT ON COLUMN v1.charges.charge_class IS 'correction: it corrects another charge, or came after its month was closed; NULL otherwise.';
COMMENT ON COLUMN v1.charges.billing_month IS 'Month of the statement that it is on, YYYY-MM: that of use, or that of recording when the former was closed before.';

-- DuckDB divides decimals and whole numbers as DOUBLE, which loses digits of large amounts: these divide as whole numbers, round the last place
-- half away from zero, and give NULL where the divisor is 0 or NULL.
CREATE MACRO main.usd_for_each(usd, n) AS CAST(
    CAST(sign(usd) * ((2 * CAST(abs(CAST(usd AS DECIMAL(38, 12))) * 1000000000000 AS HUGEINT) + n) // (2 * n)) AS DECIMAL(38, 0))
    * CAST(0.000000000001 AS DECIMAL(12, 12)) AS DECIMAL(28, 12));
CREATE MACRO main.micro_ecu_for_each(micro_ecu, n) AS CAST(
    CAST(sign(micro_ecu) * ((2 * abs(CAST(micro_ecu AS HUGEINT)) * 1000000 + n) // (2 * n)) AS DECIMAL(38, 0))
    * CAST(0.000001 AS DECIMAL(6, 6)) AS DECIMAL(28, 6));

-- For each charge that had no amount and got one later: the first line that gave it.
CREATE VIEW main.first_correction AS
SELECT k.org_id, k.corrects AS charge_id, min_by(k.charge_id, (k.recorded_at, k.charge_id)) AS correction_id
FROM main.charge k
JOIN main.charge c ON c.org_id = k.org_id AND c.charge_id = k.corrects AND c.amount_usd IS NULL AND c.amount_micro_ecu IS NULL
WHERE k.corrects IS NOT NULL AND (k.amount_usd IS NOT NULL OR k.amount_micro_ecu IS NOT NULL)
GROUP BY k.org_id, k.corrects;

CREATE VIEW main.charge_known AS
SELECT c.org_id, c.charge_id, c.run_id, c.plane, c.role, c.model_id, c.model_key, c.sku, c.quantity, c.amount_usd, c.amount_micro_ecu,
    c.occurred_at, c.corrects,
    c.amount_usd IS NULL AND c.amount_micro_ecu IS NULL AND c.corrects IS NULL AND k.charge_id IS NULL AS unpriced
FROM main.charge c
LEFT JOIN main.first_correction k ON k.org_id = c.org_id AND k.charge_id = c.charge_id;

CREATE OR REPLACE VIEW v1.daily_cost AS
SELECT org_id, CAST(occurred_at AT TIME ZONE 'UTC' AS DATE) AS day, plane, role, model_id, model_key, sku,
    count(*) FILTER (WHERE corrects IS NULL) AS charges,
    CAST(sum(quantity) FILTER (WHERE corrects IS NULL) AS BIGINT) AS quantity,
    sum(amount_usd) AS amount_usd,
    count(*) FILTER (WHERE unpriced) AS unpriced_charges,
    CAST(sum(amount_micro_ecu) AS BIGINT) AS amount_micro_ecu
FROM main.charge_known GROUP BY ALL;
COMMENT ON VIEW v1.daily_cost IS 'Both planes by day, role, model and SKU.';
COMMENT ON COLUMN v1.daily_cost.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.daily_cost.day IS 'Day of use (UTC).';
COMMENT ON COLUMN v1.daily_cost.plane IS 'provider (USD, on the owner''s own account) or ecu (what the platform charges).';
COMMENT ON COLUMN v1.daily_cost.role IS 'What the request was for: candidate, scorer, embedding, judge, probe or optimisation.';
COMMENT ON COLUMN v1.daily_cost.model_id IS 'Model; UUID.';
COMMENT ON COLUMN v1.daily_cost.model_key IS 'Key (slug) of the model.';
COMMENT ON COLUMN v1.daily_cost.sku IS 'What is charged: tokens/input, tokens/cached_input, tokens/output, tokens/reasoning, gpu_time, judge_call, inference/input or inference/output.';
COMMENT ON COLUMN v1.daily_cost.charges IS 'Charges; corrections count in none but amount_usd and amount_micro_ecu.';
COMMENT ON COLUMN v1.daily_cost.quantity IS 'Known tokens, calls or microseconds of GPUs.';
COMMENT ON COLUMN v1.daily_cost.amount_usd IS 'Known amount in USD; NULL on the ECU plane or when none is known.';
COMMENT ON COLUMN v1.daily_cost.unpriced_charges IS 'Charges whose amount is unknown; they are in no amount here.';
COMMENT ON COLUMN v1.daily_cost.amount_micro_ecu IS 'Amount in micro-ECU; NULL on the provider plane.';

CREATE OR REPLACE VIEW v1.bills AS
SELECT org_id, run_id, plane,
    count(*) AS lines,
    sum(amount_usd) AS total_usd,
    count(*) FILTER (WHERE unpriced) AS unpriced_charges,
    CAST(sum(amount_micro_ecu) AS BIGINT) AS total_micro_ecu,
    -- multiplied, since DuckDB's division gives a DOUBLE
    CAST(CAST(sum(amount_micro_ecu) AS DECIMAL(24, 0)) * CAST(0.000001 AS DECIMAL(6, 6)) AS DECIMAL(30, 6)) AS total_ecu
FROM main.charge_known WHERE run_id IS NOT NULL GROUP BY org_id, run_id, plane;
COMMENT ON VIEW v1.bills IS 'The two bills of each run, in total.';
COMMENT ON COLUMN v1.bills.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.bills.run_id IS 'Run; UUID.';
COMMENT ON COLUMN v1.bills.plane IS 'provider (USD, on the owner''s own account) or ecu (what the platform charges).';
COMMENT ON COLUMN v1.bills.lines IS 'Charges on the bill, corrections included.';
COMMENT ON COLUMN v1.bills.total_usd IS 'Known total in USD; NULL on the ECU plane or when no amount is known.';
COMMENT ON COLUMN v1.bills.unpriced_charges IS 'Charges whose amount is unknown; they are not in the total.';
COMMENT ON COLUMN v1.bills.total_micro_ecu IS 'Total in micro-ECU; NULL on the provider plane.';
COMMENT ON COLUMN v1.bills.total_ecu IS 'Total in ECU; NULL on the provider plane.';

CREATE OR REPLACE VIEW v1.leaderboard AS
WITH cost AS (
    SELECT org_id, run_id,
        sum(amount_usd) FILTER (WHERE plane = 'provider') AS provider_usd,
        count(*) FILTER (WHERE plane = 'provider' AND unpriced) AS unpriced_charges,
        CAST(sum(amount_micro_ecu) FILTER (WHERE plane = 'ecu') AS BIGINT) AS micro_ecu
    FROM main.charge_known WHERE run_id IS NOT NULL GROUP BY org_id, run_id
), speed AS (
    SELECT org_id, run_id, quantile_cont(latency_ms, 0.5) AS latency_p50_ms, quantile_cont(latency_ms, 0.95) AS latency_p95_ms
    FROM main.sample WHERE latency_ms IS NOT NULL GROUP BY org_id, run_id
)
SELECT s.org_id, s.run_id, r.started_at, r.status, r.model_id, r.model_key, r.dataset_id, r.dataset_name, r.dataset_version,
    s.grader, s.kind, s.metric, s.score, s.low, s.high, s.method, s.planned, s.answered, s.empty, s.refused, s.failed, s.unscored, s.scored,
    s.worst, s.best, p.latency_p50_ms, p.latency_p95_ms, c.provider_usd, coalesce(c.unpriced_charges, 0) AS unpriced_charges, c.micro_ecu
FROM main.score s
JOIN main.run r ON r.org_id = s.org_id AND r.run_id = s.run_id
LEFT JOIN cost c ON c.org_id = s.org_id AND c.run_id = s.run_id
LEFT JOIN speed p ON p.org_id = s.org_id AND p.run_id = s.run_id;
COMMENT ON VIEW v1.leaderboard IS 'One row for each run and grader, with cost and latency of the run.';
COMMENT ON COLUMN v1.leaderboard.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.leaderboard.run_id IS 'Run; UUID.';
COMMENT ON COLUMN v1.leaderboard.started_at IS 'When it was planned (UTC).';
COMMENT ON COLUMN v1.leaderboard.status IS 'running, completed, partial, invalid or failed.';
COMMENT ON COLUMN v1.leaderboard.model_id IS 'Model; UUID.';
COMMENT ON COLUMN v1.leaderboard.model_key IS 'Key (slug) of the model.';
COMMENT ON COLUMN v1.leaderboard.dataset_id IS 'Data set; UUID.';
COMMENT ON COLUMN v1.leaderboard.dataset_name IS 'Name of the data set.';
COMMENT ON COLUMN v1.leaderboard.dataset_version IS 'Version of the data set: SHA-256 of its rows.';
COMMENT ON COLUMN v1.leaderboard.grader IS 'Code grader with its options, or name of the judge.';
COMMENT ON COLUMN v1.leaderboard.kind IS 'code or judge.';
COMMENT ON COLUMN v1.leaderboard.metric IS 'pass_rate or mean.';
COMMENT ON COLUMN v1.leaderboard.score IS 'Over the scored rows; NULL when there are none.';
COMMENT ON COLUMN v1.leaderboard.low IS 'Lower end of the 95 % interval.';
COMMENT ON COLUMN v1.leaderboard.high IS 'Upper end of the 95 % interval.';
COMMENT ON COLUMN v1.leaderboard.method IS 'wilson, t or none.';
COMMENT ON COLUMN v1.leaderboard.planned IS 'Rows that the run set out to answer.';
COMMENT ON COLUMN v1.leaderboard.answered IS 'Rows with a non-empty answer.';
COMMENT ON COLUMN v1.leaderboard.empty IS 'Rows whose answer was empty.';
COMMENT ON COLUMN v1.leaderboard.refused IS 'Rows that the model or provider refused.';
COMMENT ON COLUMN v1.leaderboard.failed IS 'Rows without an answer after all attempts.';
COMMENT ON COLUMN v1.leaderboard.unscored IS 'Answered rows without a usable verdict.';
COMMENT ON COLUMN v1.leaderboard.scored IS 'Rows with a usable verdict.';
COMMENT ON COLUMN v1.leaderboard.worst IS 'Score if every row without a usable verdict had got the worst one.';
COMMENT ON COLUMN v1.leaderboard.best IS 'Score if every row without a usable verdict had got the best one.';
COMMENT ON COLUMN v1.leaderboard.latency_p50_ms IS 'Median latency of the answers, in milliseconds.';
COMMENT ON COLUMN v1.leaderboard.latency_p95_ms IS '95th percentile of the latency of the answers, in milliseconds.';
COMMENT ON COLUMN v1.leaderboard.provider_usd IS 'Known part of the provider bill of the run, in USD; NULL when no amount is known.';
COMMENT ON COLUMN v1.leaderboard.unpriced_charges IS 'Lines of the provider bill whose amount is unknown; they are not in provider_usd.';
COMMENT ON COLUMN v1.leaderboard.micro_ecu IS 'ECU bill of the run, in micro-ECU; NULL when there is none.';

CREATE VIEW v1.monthly_cost AS
SELECT c.org_id, c.billing_month AS month, c.plane, c.role, c.model_id, c.model_key, c.sku, c.charge_class,
    count(*) AS charges,
    CAST(sum(c.quantity) FILTER (WHERE c.corrects IS NULL) AS BIGINT) AS quantity,
    sum(c.amount_usd) AS amount_usd,
    -- a charge stays unpriced on its own statement, which may be closed; the line that gave it an amount takes it off its own
    count(*) FILTER (WHERE c.amount_usd IS NULL AND c.amount_micro_ecu IS NULL AND c.corrects IS NULL)
        - count(*) FILTER (WHERE k.correction_id IS NOT NULL) AS unpriced_charges,
    CAST(sum(c.amount_micro_ecu) AS BIGINT) AS amount_micro_ecu
FROM v1.charges c
LEFT JOIN main.first_correction k ON k.org_id = c.org_id AND k.correction_id = c.charge_id
GROUP BY ALL;
COMMENT ON VIEW v1.monthly_cost IS 'Both planes by month of the statement, role, model and SKU.';
COMMENT ON COLUMN v1.monthly_cost.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.monthly_cost.month IS 'Month of the statement, YYYY-MM (UTC).';
COMMENT ON COLUMN v1.monthly_cost.plane IS 'provider (USD, on the owner''s own account) or ecu (what the platform charges).';
COMMENT ON COLUMN v1.monthly_cost.role IS 'What the request was for: candidate, scorer, embedding, judge, probe or optimisation.';
COMMENT ON COLUMN v1.monthly_cost.model_id IS 'Model; UUID.';
COMMENT ON COLUMN v1.monthly_cost.model_key IS 'Key (slug) of the model.';
COMMENT ON COLUMN v1.monthly_cost.sku IS 'What is charged: tokens/input, tokens/cached_input, tokens/output, tokens/reasoning, gpu_time, judge_call, inference/input or inference/output.';
COMMENT ON COLUMN v1.monthly_cost.charge_class IS 'correction: these lines correct others, or came after their own month was closed; NULL otherwise.';
COMMENT ON COLUMN v1.monthly_cost.charges IS 'How many lines.';
COMMENT ON COLUMN v1.monthly_cost.quantity IS 'Known tokens, calls or microseconds of GPUs; corrections count none.';
COMMENT ON COLUMN v1.monthly_cost.amount_usd IS 'Known USD; NULL on the ECU plane or when no amount is known.';
COMMENT ON COLUMN v1.monthly_cost.unpriced_charges IS 'Charges whose amount is unknown, less those that these lines give one: negative where they stand in another row. Add up rows to see what is left.';
COMMENT ON COLUMN v1.monthly_cost.amount_micro_ecu IS 'Micro-ECU; NULL on the provider plane.';

CREATE VIEW v1.cost_per_correct AS
WITH correct AS (
    SELECT org_id, run_id, grader, count(*) AS judged, count(*) FILTER (WHERE passed) AS correct
    FROM main.verdict WHERE passed IS NOT NULL GROUP BY ALL
), cost AS (
    SELECT org_id, run_id,
        sum(amount_usd) FILTER (WHERE role = 'candidate') AS candidate_usd,
        sum(amount_usd) AS provider_usd,
        count(*) FILTER (WHERE plane = 'provider' AND unpriced) AS unpriced_charges,
        CAST(sum(amount_micro_ecu) AS BIGINT) AS micro_ecu
    FROM main.charge_known WHERE run_id IS NOT NULL GROUP BY org_id, run_id
)
SELECT r.org_id, r.run_id, r.started_at, r.model_id, r.model_key, r.dataset_name, g.grader, g.judged, g.correct, c.candidate_usd, c.provider_usd,
    coalesce(c.unpriced_charges, 0) AS unpriced_charges, c.micro_ecu,
    main.usd_for_each(c.candidate_usd, g.correct) AS candidate_usd_per_correct,
    main.usd_for_each(c.provider_usd, g.correct) AS provider_usd_per_correct,
    main.micro_ecu_for_each(c.micro_ecu, g.correct) AS micro_ecu_per_correct
FROM correct g
JOIN main.run r ON r.org_id = g.org_id AND r.run_id = g.run_id
LEFT JOIN cost c ON c.org_id = g.org_id AND c.run_id = g.run_id;
COMMENT ON VIEW v1.cost_per_correct IS 'What a correct answer costs: one row for each run and grader that passes or fails answers.';
COMMENT ON COLUMN v1.cost_per_correct.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.cost_per_correct.run_id IS 'Run; UUID.';
COMMENT ON COLUMN v1.cost_per_correct.started_at IS 'When it was planned (UTC).';
COMMENT ON COLUMN v1.cost_per_correct.model_id IS 'Model; UUID.';
COMMENT ON COLUMN v1.cost_per_correct.model_key IS 'Key (slug) of the model.';
COMMENT ON COLUMN v1.cost_per_correct.dataset_name IS 'Name of the data set.';
COMMENT ON COLUMN v1.cost_per_correct.grader IS 'Code grader with its options, or name of the judge.';
COMMENT ON COLUMN v1.cost_per_correct.judged IS 'Answers with a usable verdict.';
COMMENT ON COLUMN v1.cost_per_correct.correct IS 'Those that passed.';
COMMENT ON COLUMN v1.cost_per_correct.candidate_usd IS 'Known provider bill of the answers alone, in USD; NULL when no amount is known.';
COMMENT ON COLUMN v1.cost_per_correct.provider_usd IS 'Known provider bill of the whole run, judges included, in USD; NULL when no amount is known.';
COMMENT ON COLUMN v1.cost_per_correct.unpriced_charges IS 'Lines of the provider bill whose amount is unknown; they are in no amount here.';
COMMENT ON COLUMN v1.cost_per_correct.micro_ecu IS 'ECU bill of the run, in micro-ECU; NULL when there is none.';
COMMENT ON COLUMN v1.cost_per_correct.candidate_usd_per_correct IS 'candidate_usd divided by correct, rounded; NULL without a correct answer.';
COMMENT ON COLUMN v1.cost_per_correct.provider_usd_per_correct IS 'provider_usd divided by correct, rounded; NULL without a correct answer.';
COMMENT ON COLUMN v1.cost_per_correct.micro_ecu_per_correct IS 'micro_ecu divided by correct, rounded; NULL without a correct answer.';

CREATE VIEW v1.cost_score AS
SELECT org_id, run_id, started_at, model_id, model_key, dataset_id, dataset_name, dataset_version, grader, metric, score, low, high, planned, scored,
    provider_usd, unpriced_charges, micro_ecu,
    main.usd_for_each(provider_usd * 1000, planned) AS provider_usd_per_1000_rows,
    main.micro_ecu_for_each(CAST(micro_ecu AS HUGEINT) * 1000, planned) AS micro_ecu_per_1000_rows,
    latency_p50_ms
FROM v1.leaderboard WHERE status = 'completed';
COMMENT ON VIEW v1.cost_score IS 'Cost against score: one row for each completed run and grader, with what a thousand planned rows cost.';
COMMENT ON COLUMN v1.cost_score.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.cost_score.run_id IS 'Run; UUID.';
COMMENT ON COLUMN v1.cost_score.started_at IS 'When it was planned (UTC).';
COMMENT ON COLUMN v1.cost_score.model_id IS 'Model; UUID.';
COMMENT ON COLUMN v1.cost_score.model_key IS 'Key (slug) of the model.';
COMMENT ON COLUMN v1.cost_score.dataset_id IS 'Data set; UUID.';
COMMENT ON COLUMN v1.cost_score.dataset_name IS 'Name of the data set.';
COMMENT ON COLUMN v1.cost_score.dataset_version IS 'Version of the data set: SHA-256 of its rows.';
COMMENT ON COLUMN v1.cost_score.grader IS 'Code grader with its options, or name of the judge.';
COMMENT ON COLUMN v1.cost_score.metric IS 'pass_rate or mean.';
COMMENT ON COLUMN v1.cost_score.score IS 'Over the scored rows; NULL when there are none.';
COMMENT ON COLUMN v1.cost_score.low IS 'Lower end of the 95 % interval.';
COMMENT ON COLUMN v1.cost_score.high IS 'Upper end of the 95 % interval.';
COMMENT ON COLUMN v1.cost_score.planned IS 'Rows that the run set out to answer.';
COMMENT ON COLUMN v1.cost_score.scored IS 'Rows with a usable verdict.';
COMMENT ON COLUMN v1.cost_score.provider_usd IS 'Known part of the provider bill of the run, in USD; NULL when no amount is known.';
COMMENT ON COLUMN v1.cost_score.unpriced_charges IS 'Lines of the provider bill whose amount is unknown; they are not in provider_usd.';
COMMENT ON COLUMN v1.cost_score.micro_ecu IS 'ECU bill of the run, in micro-ECU; NULL when there is none.';
COMMENT ON COLUMN v1.cost_score.provider_usd_per_1000_rows IS 'provider_usd for a thousand planned rows, rounded.';
COMMENT ON COLUMN v1.cost_score.micro_ecu_per_1000_rows IS 'micro_ecu for a thousand planned rows, rounded.';
COMMENT ON COLUMN v1.cost_score.latency_p50_ms IS 'Median latency of the answers, in milliseconds.';

CREATE VIEW v1.unpriced_usage AS
SELECT c.org_id, strftime(c.occurred_at AT TIME ZONE 'UTC', '%Y-%m') AS month, c.model_id, c.model_key, c.role, c.sku,
    CASE WHEN c.quantity IS NULL THEN 'no_usage' ELSE 'no_price' END AS reason,
    count(*) AS charges,
    CAST(sum(c.quantity) AS BIGINT) AS quantity,
    min(c.occurred_at) AS first_at,
    max(c.occurred_at) AS last_at,
    CASE WHEN c.quantity IS NULL THEN 'byok bill reconcile FILE (the usage that the provider exports)'
        ELSE 'byok price set ' || c.model_key || ' --input USD --output USD --from ' || strftime(min(c.occurred_at) AT TIME ZONE 'UTC', '%Y-%m-%d')
            || ' && byok price apply' END AS fix
FROM main.charge_known c
WHERE c.plane = 'provider' AND c.unpriced
GROUP BY c.org_id, month, c.model_id, c.model_key, c.role, c.sku, reason, c.quantity IS NULL;
COMMENT ON VIEW v1.unpriced_usage IS 'Charges of the provider bill whose amount is not known, and what would make it known.';
COMMENT ON COLUMN v1.unpriced_usage.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.unpriced_usage.month IS 'Month of use, YYYY-MM (UTC).';
COMMENT ON COLUMN v1.unpriced_usage.model_id IS 'Model; UUID.';
COMMENT ON COLUMN v1.unpriced_usage.model_key IS 'Key (slug) of the model.';
COMMENT ON COLUMN v1.unpriced_usage.role IS 'What the request was for: candidate, scorer, embedding, judge, probe or optimisation.';
COMMENT ON COLUMN v1.unpriced_usage.sku IS 'What is charged: tokens/input, tokens/cached_input, tokens/output, tokens/reasoning, gpu_time, judge_call, inference/input or inference/output.';
COMMENT ON COLUMN v1.unpriced_usage.reason IS 'no_price: tokens are known and their price is not; no_usage: the endpoint did not tell the tokens.';
COMMENT ON COLUMN v1.unpriced_usage.charges IS 'How many charges.';
COMMENT ON COLUMN v1.unpriced_usage.quantity IS 'Their known tokens; NULL when none is known.';
COMMENT ON COLUMN v1.unpriced_usage.first_at IS 'The earliest of them (UTC).';
COMMENT ON COLUMN v1.unpriced_usage.last_at IS 'The latest of them (UTC).';
COMMENT ON COLUMN v1.unpriced_usage.fix IS 'The command that would make the amount known.';

CREATE VIEW v1.grants AS
WITH moved AS (
    SELECT org_id, grant_id,
        CAST(coalesce(sum(micro_ecu) FILTER (WHERE account = 'credit'), 0) AS BIGINT) AS available_micro_ecu,
        CAST(coalesce(sum(micro_ecu) FILTER (WHERE account = 'held'), 0) AS BIGINT) AS held_micro_ecu,
        CAST(coalesce(sum(micro_ecu) FILTER (WHERE account = 'usage'), 0) AS BIGINT) AS used_micro_ecu,
        CAST(coalesce(sum(micro_ecu) FILTER (WHERE account = 'breakage'), 0) AS BIGINT) AS expired_micro_ecu
    FROM main.ledger_entry WHERE grant_id IS NOT NULL GROUP BY org_id, grant_id
), reversed AS (
    SELECT org_id, grant_id, CAST(sum(micro_ecu) AS BIGINT) AS micro_ecu
    FROM (
        SELECT org_id, max(grant_id) AS grant_id, sum(micro_ecu) FILTER (WHERE account = 'wash') AS micro_ecu
        FROM main.ledger_entry WHERE kind = 'reverse' GROUP BY org_id, transaction_id HAVING bool_or(account = 'wash')
    ) GROUP BY org_id, grant_id
)
SELECT g.org_id, g.grant_id, g.kind, g.priority, g.micro_ecu, g.paid_usd, g.note, g.effective_at, g.expires_at, g.created_at,
    m.available_micro_ecu, m.held_micro_ecu, m.used_micro_ecu, m.expired_micro_ecu,
    -- entries move a grant's credit between its own accounts, but for a reversal and for what pays an overdraft
    g.micro_ecu - m.available_micro_ecu - m.held_micro_ecu - m.used_micro_ecu - m.expired_micro_ecu - coalesce(r.micro_ecu, 0)
        AS overdraft_micro_ecu,
    CASE WHEN m.grant_id IS NOT NULL THEN coalesce(r.micro_ecu, 0) END AS reversed_micro_ecu
FROM main.credit_grant g
LEFT JOIN moved m ON m.org_id = g.org_id AND m.grant_id = g.grant_id
LEFT JOIN reversed r ON r.org_id = g.org_id AND r.grant_id = g.grant_id;
COMMENT ON VIEW v1.grants IS 'Credit of the organisation: what was bought or given, and what became of it; available, held, used, expired, overdraft and reversed add up to micro_ecu.';
COMMENT ON COLUMN v1.grants.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.grants.grant_id IS 'Grant of credit; UUID.';
COMMENT ON COLUMN v1.grants.kind IS 'promotional (given) or paid (bought).';
COMMENT ON COLUMN v1.grants.priority IS 'Among grants of a kind that expire together, the lower is drawn first.';
COMMENT ON COLUMN v1.grants.micro_ecu IS 'What it was for, in micro-ECU.';
COMMENT ON COLUMN v1.grants.paid_usd IS 'What was paid for it, in USD; NULL when nothing was.';
COMMENT ON COLUMN v1.grants.note IS 'What it is for, in the words of who made it.';
COMMENT ON COLUMN v1.grants.effective_at IS 'From when it can be drawn (UTC).';
COMMENT ON COLUMN v1.grants.expires_at IS 'When what is left of it is lost (UTC); NULL: never.';
COMMENT ON COLUMN v1.grants.created_at IS 'When it was made (UTC).';
COMMENT ON COLUMN v1.grants.available_micro_ecu IS 'What is left of it and not held, in micro-ECU.';
COMMENT ON COLUMN v1.grants.held_micro_ecu IS 'What runs that are under way hold of it, in micro-ECU.';
COMMENT ON COLUMN v1.grants.used_micro_ecu IS 'What runs have used of it, in micro-ECU.';
COMMENT ON COLUMN v1.grants.expired_micro_ecu IS 'What was lost when it expired, in micro-ECU.';
COMMENT ON COLUMN v1.grants.overdraft_micro_ecu IS 'What of it paid for what runs had used beyond the credit there was, in micro-ECU.';
COMMENT ON COLUMN v1.grants.reversed_micro_ecu IS 'What of it was taken back, in micro-ECU.';

CREATE VIEW v1.ledger AS
SELECT org_id, entry_id, transaction_id, seq, number, kind, operation, account, grant_id, hold_id, run_id, micro_ecu, reverses, member_id, mac,
    occurred_at, recorded_at
FROM main.ledger_entry;
COMMENT ON VIEW v1.ledger IS 'Every entry of the ECU ledger; the entries of a transaction add up to zero.';
COMMENT ON COLUMN v1.ledger.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.ledger.entry_id IS 'Entry; UUID.';
COMMENT ON COLUMN v1.ledger.transaction_id IS 'Transaction; UUID.';
COMMENT ON COLUMN v1.ledger.seq IS 'Number of the transaction in the organisation''s ledger: 1, 2, … without a gap.';
COMMENT ON COLUMN v1.ledger.number IS 'Number of the entry in its transaction, from 1.';
COMMENT ON COLUMN v1.ledger.kind IS 'top_up, grant, hold, settle, release, expire or reverse.';
COMMENT ON COLUMN v1.ledger.operation IS 'What it was written for; the same operation is written once.';
COMMENT ON COLUMN v1.ledger.account IS 'wash (the world outside), credit (what can be held), held, usage, breakage (expired), overdraft (owed) or waived (borne by the platform).';
COMMENT ON COLUMN v1.ledger.grant_id IS 'Grant of credit that the entry draws on or gives back to; NULL for wash, overdraft, waived, and for usage that no credit covered.';
COMMENT ON COLUMN v1.ledger.hold_id IS 'Hold that it belongs to; NULL for top-ups, grants and expiries.';
COMMENT ON COLUMN v1.ledger.run_id IS 'Run that it was for; NULL when there is none.';
COMMENT ON COLUMN v1.ledger.micro_ecu IS 'Amount in micro-ECU; what goes into an account is positive.';
COMMENT ON COLUMN v1.ledger.reverses IS 'Transaction that it takes back; NULL otherwise.';
COMMENT ON COLUMN v1.ledger.member_id IS 'Member on whose behalf it was written; UUID.';
COMMENT ON COLUMN v1.ledger.mac IS 'Signature of the transaction, which covers the one before it.';
COMMENT ON COLUMN v1.ledger.occurred_at IS 'When it was written into the ledger (UTC).';
COMMENT ON COLUMN v1.ledger.recorded_at IS 'When the row was written down here (UTC).';

CREATE VIEW v1.balance AS
SELECT org_id,
    CAST(coalesce(sum(micro_ecu) FILTER (WHERE account IN ('credit', 'overdraft')), 0) AS BIGINT) AS available_micro_ecu,
    CAST(coalesce(sum(micro_ecu) FILTER (WHERE account = 'held'), 0) AS BIGINT) AS held_micro_ecu,
    CAST(coalesce(sum(micro_ecu) FILTER (WHERE account = 'usage'), 0) AS BIGINT) AS used_micro_ecu,
    CAST(coalesce(sum(micro_ecu) FILTER (WHERE account = 'breakage'), 0) AS BIGINT) AS expired_micro_ecu,
    CAST(-coalesce(sum(micro_ecu) FILTER (WHERE account = 'wash'), 0) AS BIGINT) AS granted_micro_ecu,
    CAST(-coalesce(sum(micro_ecu) FILTER (WHERE account = 'overdraft'), 0) AS BIGINT) AS overdrawn_micro_ecu,
    CAST(-coalesce(sum(micro_ecu) FILTER (WHERE account = 'waived'), 0) AS BIGINT) AS waived_micro_ecu,
    -- multiplied, since DuckDB's division gives a DOUBLE
    CAST(CAST(coalesce(sum(micro_ecu) FILTER (WHERE account IN ('credit', 'overdraft')), 0) AS DECIMAL(24, 0))
        * CAST(0.000001 AS DECIMAL(6, 6)) AS DECIMAL(30, 6)) AS available_ecu,
    max(seq) AS seq,
    max(occurred_at) AS as_of
FROM main.ledger_entry GROUP BY org_id;
COMMENT ON VIEW v1.balance IS 'The ECU balance of the organisation, added up from the ledger: available, held, used and expired are what was granted and what was waived.';
COMMENT ON COLUMN v1.balance.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.balance.available_micro_ecu IS 'What new runs can hold, in micro-ECU; negative when overdrawn.';
COMMENT ON COLUMN v1.balance.held_micro_ecu IS 'What runs under way hold, in micro-ECU.';
COMMENT ON COLUMN v1.balance.used_micro_ecu IS 'What runs have used, in micro-ECU.';
COMMENT ON COLUMN v1.balance.expired_micro_ecu IS 'What was lost with expired grants, in micro-ECU.';
COMMENT ON COLUMN v1.balance.granted_micro_ecu IS 'All that was bought or given, in micro-ECU.';
COMMENT ON COLUMN v1.balance.overdrawn_micro_ecu IS 'What runs used beyond the credit there was, and is not paid yet, in micro-ECU.';
COMMENT ON COLUMN v1.balance.waived_micro_ecu IS 'What runs used beyond the limit of the overdraft too, which the platform bears, in micro-ECU.';
COMMENT ON COLUMN v1.balance.available_ecu IS 'available_micro_ecu in ECU.';
COMMENT ON COLUMN v1.balance.seq IS 'Number of the last transaction.';
COMMENT ON COLUMN v1.balance.as_of IS 'When that was (UTC).';

CREATE VIEW v1.closed_months AS
SELECT org_id, month, closed_at, member_id, charges, provider_usd, unpriced_charges, micro_ecu, recorded_at FROM main.closed_month;
COMMENT ON VIEW v1.closed_months IS 'Months whose statement is closed: what comes later is on later statements, as a correction.';
COMMENT ON COLUMN v1.closed_months.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.closed_months.month IS 'Month, YYYY-MM (UTC).';
COMMENT ON COLUMN v1.closed_months.closed_at IS 'When it was closed (UTC).';
COMMENT ON COLUMN v1.closed_months.member_id IS 'Member who closed it; UUID.';
COMMENT ON COLUMN v1.closed_months.charges IS 'Lines on its statement.';
COMMENT ON COLUMN v1.closed_months.provider_usd IS 'Known provider bill on its statement, in USD.';
COMMENT ON COLUMN v1.closed_months.unpriced_charges IS 'Lines of the provider bill whose amount was not known then.';
COMMENT ON COLUMN v1.closed_months.micro_ecu IS 'Platform bill on its statement, in micro-ECU.';
COMMENT ON COLUMN v1.closed_months.recorded_at IS 'When the row was written down (UTC).';
