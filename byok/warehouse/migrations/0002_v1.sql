-- The reporting contract, version 1. A change that breaks a reader makes a schema v2 beside it.

CREATE SCHEMA v1;

CREATE VIEW v1.models AS SELECT org_id, model_id, revision, key, name, description, base_url, remote_id, tags, public, max_tokens, price_input_usd_per_mtok, price_output_usd_per_mtok, status, key_mask, capabilities, updated_at, recorded_at FROM main.model;
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

CREATE VIEW v1.datasets AS SELECT org_id, dataset_id, version, number, name, "rows", quarantined, source_name, created_at, recorded_at FROM main.dataset;
COMMENT ON VIEW v1.datasets IS 'Versions of data sets.';
COMMENT ON COLUMN v1.datasets.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.datasets.dataset_id IS 'Data set; UUID.';
COMMENT ON COLUMN v1.datasets.version IS 'SHA-256 of the canonical rows.';
COMMENT ON COLUMN v1.datasets.number IS '1, 2, … in order of arrival.';
COMMENT ON COLUMN v1.datasets.name IS 'Name of the data set.';
COMMENT ON COLUMN v1.datasets."rows" IS 'Usable rows.';
COMMENT ON COLUMN v1.datasets.quarantined IS 'Rows set aside when it was added.';
COMMENT ON COLUMN v1.datasets.source_name IS 'Name of the file that it came from.';
COMMENT ON COLUMN v1.datasets.created_at IS 'When it was added (UTC).';
COMMENT ON COLUMN v1.datasets.recorded_at IS 'When the row was written down (UTC).';

CREATE VIEW v1.runs AS SELECT org_id, run_id, revision, status, flow_run_id, member_id, model_id, model_key, dataset_id, dataset_name, dataset_version, config, fingerprint, planned, answered, empty, refused, failed, error_code, error_message, started_at, finished_at, recorded_at FROM main.run;
COMMENT ON VIEW v1.runs IS 'Evaluation runs, each in its latest state.';
COMMENT ON COLUMN v1.runs.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.runs.run_id IS 'Run; UUID.';
COMMENT ON COLUMN v1.runs.revision IS 'Goes up with every change; the highest counts.';
COMMENT ON COLUMN v1.runs.status IS 'running, completed, partial, invalid or failed.';
COMMENT ON COLUMN v1.runs.flow_run_id IS 'Prefect flow run that drove it; UUID.';
COMMENT ON COLUMN v1.runs.member_id IS 'Member who started it; UUID.';
COMMENT ON COLUMN v1.runs.model_id IS 'Model; UUID.';
COMMENT ON COLUMN v1.runs.model_key IS 'Key (slug) of the model.';
COMMENT ON COLUMN v1.runs.dataset_id IS 'Data set; UUID.';
COMMENT ON COLUMN v1.runs.dataset_name IS 'Name of the data set.';
COMMENT ON COLUMN v1.runs.dataset_version IS 'Version of the data set: SHA-256 of its rows.';
COMMENT ON COLUMN v1.runs.config IS 'Graders, judges, selection and parameters (JSON).';
COMMENT ON COLUMN v1.runs.fingerprint IS 'SHA-256 of what decides the verdicts: runs with the same one are repeats.';
COMMENT ON COLUMN v1.runs.planned IS 'Rows that the run set out to answer.';
COMMENT ON COLUMN v1.runs.answered IS 'Rows with a non-empty answer; NULL while it runs.';
COMMENT ON COLUMN v1.runs.empty IS 'Rows whose answer was empty; NULL while it runs.';
COMMENT ON COLUMN v1.runs.refused IS 'Rows refused by model or provider; NULL while it runs.';
COMMENT ON COLUMN v1.runs.failed IS 'Rows without an answer after all attempts; NULL while it runs.';
COMMENT ON COLUMN v1.runs.error_code IS 'Named error that ended or stopped it; NULL when none did.';
COMMENT ON COLUMN v1.runs.error_message IS 'What that error said.';
COMMENT ON COLUMN v1.runs.started_at IS 'When it was planned (UTC).';
COMMENT ON COLUMN v1.runs.finished_at IS 'When it ended (UTC); NULL while it runs.';
COMMENT ON COLUMN v1.runs.recorded_at IS 'When the row was written down (UTC).';

CREATE VIEW v1.samples AS SELECT org_id, run_id, sample_id, row_number, row_id, row_hash, input, expected, context, output, reasoning, status, finish_reason, error_code, attempts, latency_ms, prompt_tokens, completion_tokens, occurred_at, recorded_at FROM main.sample;
COMMENT ON VIEW v1.samples IS 'Data rows as runs answered them.';
COMMENT ON COLUMN v1.samples.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.samples.run_id IS 'Run; UUID.';
COMMENT ON COLUMN v1.samples.sample_id IS 'Sample: one data row in one run; UUID.';
COMMENT ON COLUMN v1.samples.row_number IS 'Position in the data set version, from 0.';
COMMENT ON COLUMN v1.samples.row_id IS 'Id of the data row.';
COMMENT ON COLUMN v1.samples.row_hash IS 'SHA-256 of the data row''s content.';
COMMENT ON COLUMN v1.samples.input IS 'What was asked.';
COMMENT ON COLUMN v1.samples.expected IS 'Expected answer; NULL when the data set has none.';
COMMENT ON COLUMN v1.samples.context IS 'Context that went before the input; NULL when there is none.';
COMMENT ON COLUMN v1.samples.output IS 'Answer, without the model''s reasoning.';
COMMENT ON COLUMN v1.samples.reasoning IS 'Reasoning that the endpoint sent apart from the answer.';
COMMENT ON COLUMN v1.samples.status IS 'answered, empty, refused or failed.';
COMMENT ON COLUMN v1.samples.finish_reason IS 'Why the answer ended, in the endpoint''s word.';
COMMENT ON COLUMN v1.samples.error_code IS 'Named error, when there was one.';
COMMENT ON COLUMN v1.samples.attempts IS 'Requests that it took.';
COMMENT ON COLUMN v1.samples.latency_ms IS 'Of the attempt that answered, in milliseconds; NULL when none did.';
COMMENT ON COLUMN v1.samples.prompt_tokens IS 'Tokens of the prompt as the endpoint reported them; NULL when it did not.';
COMMENT ON COLUMN v1.samples.completion_tokens IS 'Tokens of the answer as the endpoint reported them; NULL when it did not.';
COMMENT ON COLUMN v1.samples.occurred_at IS 'When it happened (UTC).';
COMMENT ON COLUMN v1.samples.recorded_at IS 'When the row was written down (UTC).';

CREATE VIEW v1.attempts AS SELECT org_id, attempt_id, run_id, role, model_id, model_key, sample_id, judge, judge_version, number, status, error_code, http_status, latency_ms, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, usage_class, provider_request_id, key_version, opened_at, closed_at, recorded_at FROM main.attempt;
COMMENT ON VIEW v1.attempts IS 'Requests to endpoints, failed and retried ones included.';
COMMENT ON COLUMN v1.attempts.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.attempts.attempt_id IS 'Attempt: one request; UUID.';
COMMENT ON COLUMN v1.attempts.run_id IS 'Run; NULL for a probe outside a run.';
COMMENT ON COLUMN v1.attempts.role IS 'What the request was for: candidate, judge or probe.';
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

CREATE VIEW v1.verdicts AS SELECT org_id, run_id, verdict_id, sample_id, grader, kind, judge_version, judge_model_key, outcome, score, passed, label, reasoning, attempt_id, occurred_at, recorded_at FROM main.verdict;
COMMENT ON VIEW v1.verdicts IS 'What each grader says of each answer.';
COMMENT ON COLUMN v1.verdicts.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.verdicts.run_id IS 'Run; UUID.';
COMMENT ON COLUMN v1.verdicts.verdict_id IS 'Verdict; UUID.';
COMMENT ON COLUMN v1.verdicts.sample_id IS 'Sample: one data row in one run; UUID.';
COMMENT ON COLUMN v1.verdicts.grader IS 'Code grader with its options, or name of the judge.';
COMMENT ON COLUMN v1.verdicts.kind IS 'code or judge.';
COMMENT ON COLUMN v1.verdicts.judge_version IS 'Version of the judge; NULL for code graders and other requests.';
COMMENT ON COLUMN v1.verdicts.judge_model_key IS 'Key of the judge''s model; NULL for code graders.';
COMMENT ON COLUMN v1.verdicts.outcome IS 'ok, unscored, unknown, unparsable, refused, error or truncated; only ok has a score.';
COMMENT ON COLUMN v1.verdicts.score IS 'Score; NULL unless the outcome is ok.';
COMMENT ON COLUMN v1.verdicts.passed IS 'Whether it passes; NULL unless the outcome is ok.';
COMMENT ON COLUMN v1.verdicts.label IS 'Label that a labelling judge chose.';
COMMENT ON COLUMN v1.verdicts.reasoning IS 'Reason that the judge gave.';
COMMENT ON COLUMN v1.verdicts.attempt_id IS 'The judge''s request; for a code grader the request that was graded.';
COMMENT ON COLUMN v1.verdicts.occurred_at IS 'When it happened (UTC).';
COMMENT ON COLUMN v1.verdicts.recorded_at IS 'When the row was written down (UTC).';

CREATE VIEW v1.charges AS SELECT org_id, charge_id, run_id, plane, role, attempt_id, model_id, model_key, sku, quantity, unit_price_usd_per_mtok, amount_usd, rate_micro_ecu, amount_micro_ecu, price_version, evidence, occurred_at, recorded_at FROM main.charge;
COMMENT ON VIEW v1.charges IS 'Lines of the two bills.';
COMMENT ON COLUMN v1.charges.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.charges.charge_id IS 'Charge; UUID of its natural key, so it is never billed twice.';
COMMENT ON COLUMN v1.charges.run_id IS 'Run; NULL outside a run.';
COMMENT ON COLUMN v1.charges.plane IS 'provider (USD, on the owner''s own account) or ecu (what the platform charges).';
COMMENT ON COLUMN v1.charges.role IS 'What the request was for: candidate, judge or probe.';
COMMENT ON COLUMN v1.charges.attempt_id IS 'Attempt: one request; UUID.';
COMMENT ON COLUMN v1.charges.model_id IS 'Model; UUID.';
COMMENT ON COLUMN v1.charges.model_key IS 'Key (slug) of the model.';
COMMENT ON COLUMN v1.charges.sku IS 'tokens/input, tokens/output, judge_call, inference/input or inference/output.';
COMMENT ON COLUMN v1.charges.quantity IS 'Tokens or calls; NULL when unknown.';
COMMENT ON COLUMN v1.charges.unit_price_usd_per_mtok IS 'Price in USD per million tokens, copied at billing; NULL when unknown or on the other plane.';
COMMENT ON COLUMN v1.charges.amount_usd IS 'Amount in USD; NULL when unknown, never 0 for unknown.';
COMMENT ON COLUMN v1.charges.rate_micro_ecu IS 'Micro-ECU per unit, copied at billing; NULL on the provider plane.';
COMMENT ON COLUMN v1.charges.amount_micro_ecu IS 'Amount in whole micro-ECU; NULL on the provider plane or when unknown.';
COMMENT ON COLUMN v1.charges.price_version IS 'Which registered price or rate card was used.';
COMMENT ON COLUMN v1.charges.evidence IS 'reported, computed, estimated or unknown.';
COMMENT ON COLUMN v1.charges.occurred_at IS 'When it happened (UTC).';
COMMENT ON COLUMN v1.charges.recorded_at IS 'When the row was written down (UTC).';

CREATE VIEW v1.scores AS SELECT org_id, run_id, grader, revision, kind, metric, score, low, high, method, planned, answered, empty, refused, failed, unscored, scored, worst, best, recorded_at FROM main.score;
COMMENT ON VIEW v1.scores IS 'One grader over one run: score, interval and the whole denominator.';
COMMENT ON COLUMN v1.scores.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.scores.run_id IS 'Run; UUID.';
COMMENT ON COLUMN v1.scores.grader IS 'Code grader with its options, or name of the judge.';
COMMENT ON COLUMN v1.scores.revision IS 'Goes up with every change; the highest counts.';
COMMENT ON COLUMN v1.scores.kind IS 'code or judge.';
COMMENT ON COLUMN v1.scores.metric IS 'pass_rate or mean.';
COMMENT ON COLUMN v1.scores.score IS 'Over the scored rows; NULL when there are none.';
COMMENT ON COLUMN v1.scores.low IS 'Lower end of the 95 % interval.';
COMMENT ON COLUMN v1.scores.high IS 'Upper end of the 95 % interval.';
COMMENT ON COLUMN v1.scores.method IS 'wilson, t or none.';
COMMENT ON COLUMN v1.scores.planned IS 'Rows that the run set out to answer.';
COMMENT ON COLUMN v1.scores.answered IS 'Rows with a non-empty answer.';
COMMENT ON COLUMN v1.scores.empty IS 'Rows whose answer was empty.';
COMMENT ON COLUMN v1.scores.refused IS 'Rows that the model or provider refused.';
COMMENT ON COLUMN v1.scores.failed IS 'Rows without an answer after all attempts.';
COMMENT ON COLUMN v1.scores.unscored IS 'Answered rows without a usable verdict.';
COMMENT ON COLUMN v1.scores.scored IS 'Rows with a usable verdict.';
COMMENT ON COLUMN v1.scores.worst IS 'Score if every row without a usable verdict had got the worst one.';
COMMENT ON COLUMN v1.scores.best IS 'Score if every row without a usable verdict had got the best one.';
COMMENT ON COLUMN v1.scores.recorded_at IS 'When the row was written down (UTC).';

CREATE VIEW v1.leaderboard AS
WITH cost AS (
    SELECT org_id, run_id,
        sum(amount_usd) FILTER (WHERE plane = 'provider') AS provider_usd,
        count(*) FILTER (WHERE plane = 'provider' AND amount_usd IS NULL) AS unpriced_charges,
        CAST(sum(amount_micro_ecu) FILTER (WHERE plane = 'ecu') AS BIGINT) AS micro_ecu
    FROM main.charge WHERE run_id IS NOT NULL GROUP BY org_id, run_id
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

CREATE VIEW v1.bills AS
SELECT org_id, run_id, plane,
    count(*) AS lines,
    sum(amount_usd) AS total_usd,
    count(*) FILTER (WHERE plane = 'provider' AND amount_usd IS NULL) AS unpriced_charges,
    CAST(sum(amount_micro_ecu) AS BIGINT) AS total_micro_ecu,
    -- multiplied, since DuckDB's division gives a DOUBLE
    CAST(CAST(sum(amount_micro_ecu) AS DECIMAL(24, 0)) * CAST(0.000001 AS DECIMAL(6, 6)) AS DECIMAL(30, 6)) AS total_ecu
FROM main.charge WHERE run_id IS NOT NULL GROUP BY org_id, run_id, plane;
COMMENT ON VIEW v1.bills IS 'The two bills of each run, in total.';
COMMENT ON COLUMN v1.bills.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.bills.run_id IS 'Run; UUID.';
COMMENT ON COLUMN v1.bills.plane IS 'provider (USD, on the owner''s own account) or ecu (what the platform charges).';
COMMENT ON COLUMN v1.bills.lines IS 'Charges on the bill.';
COMMENT ON COLUMN v1.bills.total_usd IS 'Known total in USD; NULL on the ECU plane or when no amount is known.';
COMMENT ON COLUMN v1.bills.unpriced_charges IS 'Charges whose amount is unknown; they are not in the total.';
COMMENT ON COLUMN v1.bills.total_micro_ecu IS 'Total in micro-ECU; NULL on the provider plane.';
COMMENT ON COLUMN v1.bills.total_ecu IS 'Total in ECU; NULL on the provider plane.';

CREATE VIEW v1.daily_cost AS
SELECT org_id, CAST(occurred_at AT TIME ZONE 'UTC' AS DATE) AS day, plane, role, model_id, model_key, sku,
    count(*) AS charges,
    CAST(sum(quantity) AS BIGINT) AS quantity,
    sum(amount_usd) AS amount_usd,
    count(*) FILTER (WHERE plane = 'provider' AND amount_usd IS NULL) AS unpriced_charges,
    CAST(sum(amount_micro_ecu) AS BIGINT) AS amount_micro_ecu
FROM main.charge GROUP BY ALL;
COMMENT ON VIEW v1.daily_cost IS 'Both planes by day, role, model and SKU.';
COMMENT ON COLUMN v1.daily_cost.org_id IS 'Organisation that the row belongs to.';
COMMENT ON COLUMN v1.daily_cost.day IS 'Day of use (UTC).';
COMMENT ON COLUMN v1.daily_cost.plane IS 'provider (USD, on the owner''s own account) or ecu (what the platform charges).';
COMMENT ON COLUMN v1.daily_cost.role IS 'What the request was for: candidate, judge or probe.';
COMMENT ON COLUMN v1.daily_cost.model_id IS 'Model; UUID.';
COMMENT ON COLUMN v1.daily_cost.model_key IS 'Key (slug) of the model.';
COMMENT ON COLUMN v1.daily_cost.sku IS 'tokens/input, tokens/output, judge_call, inference/input or inference/output.';
COMMENT ON COLUMN v1.daily_cost.charges IS 'Charges.';
COMMENT ON COLUMN v1.daily_cost.quantity IS 'Known tokens or calls.';
COMMENT ON COLUMN v1.daily_cost.amount_usd IS 'Known amount in USD; NULL on the ECU plane or when none is known.';
COMMENT ON COLUMN v1.daily_cost.unpriced_charges IS 'Charges whose amount is unknown.';
COMMENT ON COLUMN v1.daily_cost.amount_micro_ecu IS 'Amount in micro-ECU; NULL on the provider plane.';
