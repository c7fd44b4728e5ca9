-- Both bills by month of the statement and model. What stands on a closed month does not change.
select
    month,
    model_key,
    cast(sum(charges) as bigint) as charges,
    sum(amount_usd) as provider_usd,
    cast(coalesce(sum(unpriced_charges) filter (where plane = 'provider'), 0) as bigint) as unpriced_charges,
    cast(sum(amount_micro_ecu) as bigint) as micro_ecu
from {{ source('byok', 'monthly_cost') }}
group by month, model_key
