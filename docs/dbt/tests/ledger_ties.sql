-- The entries of a transaction add up to zero: a row here is one that does not.
select transaction_id, sum(micro_ecu) as rest
from {{ source('byok', 'ledger') }}
group by transaction_id
having sum(micro_ecu) <> 0
