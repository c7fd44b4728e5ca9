-- The newest run of each model, data set and grader. The quotients come from the view: DuckDB's own division would give a DOUBLE.
select
    dataset_name,
    grader,
    model_key,
    run_id,
    started_at,
    judged,
    correct,
    provider_usd,
    unpriced_charges,
    candidate_usd_per_correct,
    provider_usd_per_correct,
    micro_ecu_per_correct
from {{ source('byok', 'cost_per_correct') }}
qualify row_number() over (partition by model_id, dataset_name, grader order by started_at desc, run_id desc) = 1
