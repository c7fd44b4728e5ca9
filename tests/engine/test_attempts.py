"""One unit against a real endpoint that fails in known ways: attempts, journal, waits, stops."""

import asyncio

import pytest

from byok.endpoint import EgressPolicy, EndpointClient, EndpointOverloaded, EndpointRateLimited
from byok.engine.attempts import Asker, Unit, attempt_id, attempt_unit, work_off
from byok.engine.gate import Gate
from byok.engine.journal import Journal, read_journal
from byok.engine.replay import replay
from byok.engine.retry import RetryPolicy
from byok.sandbox import Fault, Sandbox

QUESTIONS = [(f"What is {n} + {n}?", str(2 * n)) for n in range(50)]


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Ask the first questions of a sandbox with given faults; returns outcomes, journal records, waits and stats."""

    def run(faults, *, units=1, gates=None, policy=None, first_attempt=1, concurrency=1):
        waits = []

        class Watched(Gate):
            async def sleep(self, seconds):
                waits.append(seconds)

        async def scenario(sandbox):
            outcomes = []
            client = EndpointClient(sandbox.base_url, sandbox.model_id, None, policy=EgressPolicy.from_environment())
            asked = [
                Unit(id=f"u{n}", sample_id=f"u{n}", messages=[{"role": "user", "content": QUESTIONS[n][0]}], first_attempt=first_attempt)
                for n in range(units)
            ]
            with Journal(tmp_path / "journal.ndjson") as journal:
                async with client:
                    way_out = Watched(concurrency)
                    if gates is not None:
                        gates.append(way_out)
                    asker = Asker(client, journal, way_out, policy or RetryPolicy(jitter=lambda: 1.0))

                    async def answer(unit):
                        outcome = await attempt_unit(unit, asker)
                        outcomes.append(outcome)
                        if outcome is not None:
                            journal.append(*outcome.records, {"k": "result", "unit": unit.id})

                    await work_off(asked, concurrency, answer)
            return outcomes

        with Sandbox(QUESTIONS, faults=faults) as sandbox:
            monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", sandbox.host_port)
            outcomes = asyncio.run(scenario(sandbox))
            stats = sandbox.stats()
        return outcomes, list(read_journal(tmp_path / "journal.ndjson")), waits, stats

    return run


def test_an_answer_at_the_first_attempt(ask):
    outcomes, records, waits, _ = ask(None)
    assert outcomes[0].answer.text.rstrip(".").endswith("0")
    assert [record["k"] for record in records] == ["opened", "closed", "result"]
    assert records[1]["status"] == "ok" and records[1]["usage"][4] == "reported" and waits == []


def test_every_attempt_is_journalled_and_the_waits_double(ask):
    outcomes, records, waits, stats = ask([500, 503, 500])
    assert outcomes[0].answer is not None and outcomes[0].attempts == 4
    assert waits == [0.5, 1.0, 2.0]
    assert [record["number"] for record in records if record["k"] == "opened"] == [1, 2, 3, 4]
    assert [record["status"] for record in records if record["k"] == "closed"] == ["error", "error", "error", "ok"]
    assert stats["chat_requests"] == 4


def test_the_servers_own_wait_is_obeyed(ask):
    _, _, waits, _ = ask([Fault(status=429, headers={"Retry-After": "7"})])
    assert waits == [7.5]  # and a little more, so that not all come back at the same moment


def test_a_wait_beyond_patience_ends_the_unit(ask):
    outcomes, _, waits, stats = ask([Fault(status=429, headers={"Retry-After": "3600"})])
    assert outcomes[0].error.code == "endpoint_rate_limited" and waits == [] and stats["chat_requests"] == 1


def test_the_last_attempt_gives_up(ask):
    outcomes, _, waits, stats = ask(lambda number, question: 500)
    assert outcomes[0].error.code == "endpoint_overloaded"
    assert stats["chat_requests"] == RetryPolicy().attempts == len(waits) + 1


def test_a_refused_key_stops_everything_and_leaves_the_units_open(ask):
    gates = []
    outcomes, records, waits, stats = ask(lambda number, question: 401 if number >= 3 else None, units=10, gates=gates)
    assert [outcome is not None for outcome in outcomes] == [True, True] + [False] * 8
    assert gates[0].stopped_by.code == "endpoint_auth"
    assert stats["chat_requests"] == 3 and waits == []
    state = replay(records)
    assert len(state.results) == 2 and len(state.attempts) == 3  # the refused attempt is recorded, its unit is not finished


def test_a_parameter_that_the_endpoint_renames_is_renamed_without_a_wait(ask):
    fault = Fault(status=400, message="Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", parameter="max_tokens")
    outcomes, records, waits, stats = ask([fault])
    assert outcomes[0].answer is not None and waits == [] and stats["chat_requests"] == 2
    assert len([record for record in records if record["k"] == "opened"]) == 2


def test_a_restart_continues_the_numbering(ask):
    _, records, _, _ = ask(None, first_attempt=3)
    assert (records[0]["number"], records[0]["attempt_id"]) == (3, attempt_id("u0", 3))


def test_an_attempt_without_an_end_is_lost():
    state = replay([{"k": "opened", "attempt_id": "a", "unit": "u", "sample_id": "u", "number": 1, "at": "2026-01-01T00:00:00+00:00"}])
    assert state.attempts["a"].closed is None and state.next_attempt("u") == 2 and state.next_attempt("v") == 1


def test_a_key_that_was_renewed_while_the_record_was_written_is_told_by_the_record_of_the_end(tmp_path, monkeypatch):
    async def newer(refused):
        return "sk-test-0123456789abcdef-2", 2

    async def scenario(sandbox):
        policy = EgressPolicy.from_environment()
        options = {"policy": policy, "key_version": 1, "renew_key": newer}
        async with EndpointClient(sandbox.base_url, sandbox.model_id, "sk-test-0123456789abcdef-1", **options) as client:

            class Slow(Journal):
                async def commit(self, *records):
                    await super().commit(*records)
                    await client.renew(1)  # as another request does whose key was refused

            with Slow(tmp_path / "journal.ndjson") as journal:
                asker = Asker(client, journal, Gate(1), RetryPolicy())
                outcome = await attempt_unit(Unit(id="u", sample_id="u", messages=[{"role": "user", "content": QUESTIONS[0][0]}]), asker)
                journal.append(*outcome.records)

    with Sandbox(QUESTIONS) as sandbox:
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", sandbox.host_port)
        asyncio.run(scenario(sandbox))
    opened, closed = read_journal(tmp_path / "journal.ndjson")
    assert (opened["key_version"], closed["key_version"], closed["status"]) == (1, 2, "ok")


def test_the_policy_caps_its_own_waits():
    policy = RetryPolicy(attempts=100, jitter=lambda: 1.0)
    error = EndpointOverloaded("busy")
    assert [policy.wait_s(error, n) for n in (1, 2, 7, 50)] == [0.5, 1.0, 30.0, 30.0]
    assert policy.wait_s(EndpointRateLimited("slow down", retry_after_s=0.25), 1) == 0.275
