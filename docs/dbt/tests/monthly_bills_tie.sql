-- The mart has all that was charged, to the last digit: a row here is a difference.
with mart as (
    select coalesce(sum(provider_usd), 0) as usd, coalesce(sum(micro_ecu), 0) as micro_ecu, coalesce(sum(charges), 0) as charges
    from {{ ref('monthly_bills') }}
),
charged as (
    select coalesce(sum(amount_usd), 0) as usd, coalesce(sum(amount_micro_ecu), 0) as micro_ecu, count(*) as charges
    from {{ source('byok', 'charges') }}
)
select * from mart, charged
where mart.usd <> charged.usd or mart.micro_ecu <> charged.micro_ecu or mart.charges <> charged.charges
