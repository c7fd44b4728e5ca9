import asyncio

from byok.engine.limiter import Gate, shared_gate
from byok.errors import InputError, OutsideError


def test_no_more_than_the_limit_hold_a_slot_at_once():
    async def scenario():
        gate, inside, most = Gate(3), 0, 0

        async def one():
            nonlocal inside, most
            async with gate.slot():
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.001)
                inside -= 1

        await asyncio.gather(*(one() for _ in range(30)))
        return most

    assert asyncio.run(scenario()) == 3


def test_shards_of_one_run_share_a_gate_and_other_runs_do_not():
    async def scenario():
        first, again, other = shared_gate("run-a", 2), shared_gate("run-a", 2), shared_gate("run-b", 2)
        return first is again, first is other

    assert asyncio.run(scenario()) == (True, False)


def test_the_first_reason_to_stop_is_kept():
    gate = Gate(1)
    gate.stop(OutsideError("first"))
    gate.stop(InputError("second"))
    assert gate.stopped_by is not None and gate.stopped_by.message == "first"
