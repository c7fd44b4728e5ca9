"""What is tried again, when, and when no more: any sequence of failures, in simulated time."""

import asyncio
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from byok.endpoint import errors
from byok.engine.attempts import Asker, Unit, attempt_unit
from byok.engine.gate import Gate
from byok.engine.journal import Journal, read_journal
from byok.engine.limiter import Limiter
from byok.engine.replay import replay
from byok.engine.retry import RetryPolicy
from byok_testing.simulated import simulate

AGAIN = (errors.EndpointOverloaded, errors.EndpointTimeout, errors.EndpointUnreachable, errors.ResponseTruncated, errors.EndpointCold)
NEVER = (errors.ContentFiltered, errors.ContextLength, errors.ResponseInvalid, errors.EndpointForbidden)
STOP = (errors.EndpointAuth, errors.CreditExhausted, errors.BadRequest, errors.RemoteModelNotFound, errors.EndpointTls)

waits = st.none() | st.floats(0.01, 200)
failures = st.one_of(
    st.sampled_from(AGAIN).map(lambda kind: kind("no")),
    waits.map(lambda wait: errors.EndpointRateLimited("no", retry_after_s=wait)),
    waits.map(lambda wait: errors.EndpointOverloaded("no", retry_after_s=wait)),
    st.sampled_from((*NEVER, *STOP)).map(lambda kind: kind("no")),
)


class Scripted:
    """An endpoint that fails as it is told, and answers after that."""

    state = key_version = extra_payload = None

    def __init__(self, loop, script, latency_s):
        self.loop, self.script, self.latency_s, self.sent = loop, list(script), latency_s, []

    def most_tokens(self, asked):
        return asked

    async def attempt(self, messages, **options):
        self.sent.append(self.loop.time())
        await asyncio.sleep(self.latency_s)
        if self.script:
            raise self.script.pop(0)
        usage = SimpleNamespace(
            prompt_tokens=1, completion_tokens=1, cached_tokens=0, reasoning_tokens=0, usage_class="reported", cost_usd=None
        )
        return SimpleNamespace(usage=usage, limits=None, latency_ms=1.0, http_status=200, request_id=None)

    def adapt(self, error):
        return False

    async def renew(self, version):
        return False


class AtOnce(Journal):
    """Waits for no disk: there is none in simulated time."""

    async def commit(self, *records):
        self.append(*records)


@settings(max_examples=300, deadline=None)
@given(
    script=st.lists(failures, max_size=30),
    latency_s=st.floats(0.01, 60),
    deadline_s=st.floats(1, 900),
    jitter=st.lists(st.floats(0, 0.999), min_size=1, max_size=7),
)
def test_any_sequence_of_failures_is_tried_again_by_the_rules_within_the_deadline(tmp_path_factory, script, latency_s, deadline_s, jitter):
    path = tmp_path_factory.mktemp("journal") / "a.ndjson"
    drawn = iter(jitter * 40)

    async def scenario(loop):
        endpoint, policy = Scripted(loop, script, latency_s), RetryPolicy(deadline_s=deadline_s, jitter=lambda: next(drawn))
        gate = Gate(1, Limiter(clock=loop.time, jitter=lambda: 0.5), now=loop.time)
        with AtOnce(path) as journal:
            outcome = await attempt_unit(Unit(id="u", sample_id="u", messages=[]), Asker(endpoint, journal, gate, policy))
            if outcome is not None:
                journal.append(*outcome.records, {"k": "result", "unit": "u"})
        return endpoint, policy, gate, outcome

    endpoint, policy, gate, outcome = simulate(scenario)
    sent, met = endpoint.sent, script[: len(endpoint.sent)]
    state = replay(read_journal(path))
    # Each request is on record, with its end; a unit that has not ended has no result.
    assert len(state.attempts) == len(sent) and state.unknown == 0
    assert bool(state.results) == (outcome is not None)
    assert sent[-1] - sent[0] <= deadline_s + 1e-6
    for error in met[:-1] if len(met) == len(sent) else met:
        assert error.retryable and not error.stops_run
    for error, before, after in zip(met, sent, sent[1:], strict=False):
        told = error.retry_after_s
        assert after - before >= latency_s + (told or 0) - 1e-6
        assert told is None or told <= policy.patience_s
    for code, most in (("endpoint_overloaded", policy.attempts), ("endpoint_rate_limited", policy.refused_attempts)):
        assert sum(error.code == code for error in met) <= most
    if len(met) < len(sent):
        assert outcome.answer is not None
    elif met[-1].stops_run:
        assert outcome is None and gate.stopped_by is met[-1]
    elif gate.stopped_by is None:
        assert outcome.error is met[-1] and outcome.attempts == len(sent)
    else:
        assert gate.stopped_by.code == "circuit_open"


@given(error=failures, attempt=st.integers(1, 70), elapsed_s=st.floats(0, 1000), jitter=st.floats(0, 0.999))
def test_a_wait_is_full_jitter_or_the_servers_own_and_within_the_deadline(error, attempt, elapsed_s, jitter):
    policy = RetryPolicy(jitter=lambda: jitter)
    wait = policy.wait_s(error, attempt, elapsed_s)
    if wait is None:
        return
    longest = min(policy.cap_s, policy.base_s * 2 ** (attempt - 1))
    assert error.retryable and elapsed_s + wait <= policy.deadline_s
    if error.retry_after_s is None:
        assert wait == jitter * longest
    else:
        assert error.retry_after_s <= wait <= 1.1 * error.retry_after_s <= 1.1 * policy.patience_s
