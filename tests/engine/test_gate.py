"""What stands between a run and its next request: stop, pause, ceiling, cap."""

import asyncio
import random
import subprocess
import sys
from decimal import Decimal

import pytest

from byok.engine.budget import PICO, Amount, Budget, Caps
from byok.engine.gate import Gate, shared_gate
from byok.engine.limiter import Ended, Limiter
from byok.errors import InputError, OutsideError

WELL = Ended("answered")


def test_no_more_than_the_ceiling_are_under_way():
    async def scenario():
        gate, most = Gate(3), 0

        async def one():
            nonlocal most
            ticket = await gate.enter()
            most = max(most, gate.in_flight)
            await asyncio.sleep(0.001)
            gate.leave(ticket, WELL)

        await asyncio.gather(*(one() for _ in range(30)))
        return most, gate.in_flight, gate.limiter.in_flight

    assert asyncio.run(scenario()) == (3, 0, 0)


def test_the_first_reason_to_stop_is_kept_and_wakes_all_who_wait():
    async def scenario():
        gate = Gate(8, Limiter(first=1))
        ticket = await gate.enter()
        waiting = [asyncio.create_task(gate.enter()) for _ in range(12)]
        asleep = asyncio.create_task(gate.sleep(3600))
        await asyncio.sleep(0.01)
        gate.stop(OutsideError("first"))
        gate.stop(InputError("second"))
        found = await asyncio.wait_for(asyncio.gather(*waiting), 1)
        await asyncio.wait_for(asleep, 1)
        gate.leave(ticket, WELL)
        return found, gate.stopped_by.message, gate.in_flight, gate.limiter.in_flight

    assert asyncio.run(scenario()) == ([None] * 12, "first", 0, 0)


def test_a_pause_holds_what_has_not_begun_and_its_time_does_not_count():
    async def scenario():
        gate = Gate(2)
        under_way = await gate.enter()
        gate.pause()
        begun = gate.clock()
        waiting = asyncio.create_task(gate.enter())
        await asyncio.sleep(0.2)
        held = not waiting.done()
        gate.leave(under_way, WELL)  # what was under way comes to its end
        gate.go_on()
        ticket = await asyncio.wait_for(waiting, 1)
        return held, ticket is not None, gate.clock() - begun < 0.1

    assert asyncio.run(scenario()) == (True, True, True)


def test_a_paused_run_can_be_stopped():
    async def scenario():
        gate = Gate(2)
        gate.pause()
        waiting = asyncio.create_task(gate.enter())
        await asyncio.sleep(0.01)
        gate.stop(OutsideError("enough"))
        return await asyncio.wait_for(waiting, 1), gate.paused

    assert asyncio.run(scenario()) == (None, False)


def test_gates_are_shared_by_name_on_one_loop():
    async def scenario():
        first = shared_gate("run-a", lambda: Gate(2))
        return first is shared_gate("run-a", lambda: Gate(2)), first is shared_gate("run-b", lambda: Gate(2))

    assert asyncio.run(scenario()) == (True, False)


@pytest.mark.parametrize("seed", range(8))
def test_a_hundred_workers_never_pass_a_cap_whatever_their_requests_cost(tmp_path, seed):
    draw = random.Random(seed)
    caps = Caps(Decimal(draw.randint(1, 40)) / 100, draw.choice([None, draw.randint(1, 5000)]), draw.choice([None, draw.randint(1, 400)]))

    async def scenario():
        budget = Budget(tmp_path / "budget", caps)
        gate = Gate(100, Limiter(first=100), budget)
        spent, kept = Amount(), Amount()

        async def worker():
            nonlocal spent, kept
            while gate.stopped_by is None:
                bound = Amount(draw.randint(1, PICO // 200), draw.randint(0, 60), 1)
                ticket = await gate.enter(bound=bound)
                if ticket is None:
                    return
                assert caps.passed_by(budget.committed) is None
                await asyncio.sleep(draw.random() * 0.002)
                true = None if draw.random() < 0.1 else Amount(draw.randint(0, bound.pico_usd), draw.randint(0, bound.micro_ecu), 1)
                spent += true or bound
                kept += Amount() if true else bound
                gate.leave(ticket, WELL, true)

        await asyncio.gather(*(worker() for _ in range(100)))
        return gate.stopped_by, budget.committed, spent, budget.any_in_flight()

    stopped, committed, spent, under_way = asyncio.run(scenario())
    assert stopped.code == "budget_reached" and stopped.hint
    assert caps.passed_by(spent) is None and committed == spent and not under_way


def test_two_processes_share_one_cap(tmp_path):
    code = (
        "import sys; from pathlib import Path; from byok.engine.budget import Amount, Budget, Caps\n"
        "budget = Budget(Path(sys.argv[1]), Caps(requests=500)); done = 0\n"
        "while budget.reserve(Amount(requests=1)) is None:\n"
        "    budget.settle(Amount(requests=1), Amount(requests=1)); done += 1\n"
        "print(done)"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "budget")], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    done = [int(child.communicate(timeout=60)[0]) for child in children]
    assert sum(done) == 500


def test_nobody_waits_for_what_a_dead_process_has_under_way_and_its_bound_stays_spent(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from byok.engine.budget import Amount, Budget, Caps\n"
        "budget = Budget(Path(sys.argv[1]), Caps(requests=5))\n"
        "assert budget.reserve(Amount(requests=3)) is None; print('reserved', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "budget")], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "reserved\n"

    async def scenario():
        budget = Budget(tmp_path / "budget", Caps(requests=5))
        gate = Gate(2, budget=budget)
        ticket = await gate.enter(bound=Amount(requests=2))
        waiting = asyncio.create_task(gate.enter(bound=Amount(requests=1)))
        await asyncio.sleep(0.3)
        waited = not waiting.done()
        gate.leave(ticket, WELL, Amount(requests=2))
        assert budget.any_in_flight()
        child.kill()
        child.wait()
        return waited, await asyncio.wait_for(waiting, 10), gate.stopped_by.code, budget.committed.requests

    assert asyncio.run(scenario()) == (True, None, "budget_reached", 5)
    child.stdout.close()
    assert len(list(tmp_path.glob("*.user"))) == 1  # the dead one's is gone


def test_what_costs_more_than_its_bound_stops_the_run_at_once(tmp_path):
    async def scenario():
        gate = Gate(2, budget=Budget(tmp_path / "budget", Caps(micro_ecu=100)))
        ticket = await gate.enter(bound=Amount(micro_ecu=50))
        gate.leave(ticket, WELL, Amount(micro_ecu=500))
        return gate.stopped_by.code, await gate.enter(bound=Amount(micro_ecu=1))

    assert asyncio.run(scenario()) == ("budget_reached", None)
