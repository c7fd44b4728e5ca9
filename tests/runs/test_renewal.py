"""A run whose key is refused takes a newer one, once; when there is none, it stops with everything accounted for."""

import asyncio
import json
from datetime import timedelta

import pytest
from pydantic import SecretStr

from byok.datasets import Mapping
from byok.engine.journal import read_journal
from byok.engine.replay import replay
from byok.ids import new_id
from byok.registry import RegisterRequest
from byok.runs import EvaluationRequest, answer_shard, probe_models, start_run
from byok.runs.folder import RunFolder
from byok.sandbox import Fault, Sandbox

FIRST, SECOND = "sk-renewal-1a2b3c4d5e6f708192a3b4c5d6e7f80", "sk-renewal-2a2b3c4d5e6f708192a3b4c5d6e7f80"
QUESTIONS = [(f"What is {n} times 5?", str(5 * n)) for n in range(20)]


@pytest.fixture
def act():
    """What happens at each chat request; replaced by the test."""
    return {"do": lambda number: None}


@pytest.fixture
def server(services, monkeypatch, tmp_path, act):
    with Sandbox(QUESTIONS, api_key=FIRST, model_id="m", faults=lambda number, question: act["do"](number)) as started:
        monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", started.host_port)
        request = RegisterRequest(key="m", name="M", base_url=started.base_url, remote_id="m")
        asyncio.run(services.registry.register(services.actor, request, SecretStr(FIRST)))
        rows = tmp_path / "fives.jsonl"
        rows.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in QUESTIONS))
        services.datasets.add(services.actor, "fives", rows, Mapping())
        yield started


def planned(services, **options):
    return start_run(services, EvaluationRequest(model="m", dataset="fives", graders=["numeric"], **options), new_id())


def rotate(services, server, *accepted):
    server.accept(FIRST, SECOND)
    asyncio.run(services.registry.rotate(services.actor, "m", SecretStr(SECOND), grace=timedelta(hours=24)))
    server.accept(*accepted)


def attempts(services, plan):
    return replay(read_journal(RunFolder.of(services.home, plan.run_id).journal("answer", 0)))


def test_a_planned_run_takes_the_new_key_when_the_provider_lets_go_of_the_old_one(services, server):
    plan = planned(services)
    rotate(services, server, SECOND)
    asyncio.run(probe_models(services, plan.run_id))
    report = asyncio.run(answer_shard(services, plan.run_id, 0))
    assert (report.finished, report.stopped_by) == (20, None)


def test_two_refused_keys_are_not_swapped_for_ever(services, server):
    plan = planned(services, concurrency=1)
    rotate(services, server, "sk-somebody-elses-000000000000000000000")
    before = server.stats()["chat_requests"]
    report = asyncio.run(answer_shard(services, plan.run_id, 0))
    assert (report.finished, report.stopped_by) == (0, "endpoint_auth")
    # The run's own version, then the newer one: no more.
    assert server.stats()["chat_requests"] - before == 2


def test_when_there_is_no_key_any_more_what_is_under_way_is_still_heard(services, server, act):
    plan = planned(services, concurrency=8)
    begun = server.stats()["chat_requests"]

    def do(number):
        if number - begun == 5:
            # The model is disabled, and the provider lets go of its key, while four slow answers are under way.
            services.registry.disable(services.actor, "m")
            server.accept(SECOND)
        return Fault(delay_ms=300) if number - begun <= 4 else None

    act["do"] = do
    report = asyncio.run(answer_shard(services, plan.run_id, 0))
    assert report.stopped_by == "secret_gone"
    state = attempts(services, plan)
    assert report.finished == len(state.results) >= 4
    opened = list(read_journal(RunFolder.of(services.home, plan.run_id).journal("answer", 0)))
    kinds = [record["k"] for record in opened]
    assert kinds.count("opened") == kinds.count("closed"), "an answer that came was not written down"
