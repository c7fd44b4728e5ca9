"""Steering a run from outside while it is under way, and what a run does about attempts of which nobody saw the end."""

import subprocess
import sys
import threading
import time

import pytest

from byok.engine.journal import Journal
from byok.errors import ByokError
from byok.ids import new_id
from byok.runs import EvaluationRequest, Resumption, ask_run, change_run, close_run, start_run
from byok.runs.live import look_at
from byok_testing.chain import carry_out


class UnderWay:
    """A run in a thread of its own."""

    def __init__(self, bench, plan):
        self.bench, self.plan, self.finished = bench, plan, None
        self.thread = threading.Thread(target=self._carry_out)
        self.thread.start()

    def _carry_out(self):
        self.finished = carry_out(self.bench.services, self.plan)

    def ask(self, wish):
        ask_run(self.bench.services, self.plan.run_id, wish)

    def live(self):
        return look_at(self.bench.services, self.plan.run_id)

    def until(self, true, patience_s=30):
        end = time.monotonic() + patience_s
        while not true(self.live()):
            assert time.monotonic() < end, self.live()
            time.sleep(0.02)

    def end(self):
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.finished


def answers(live):
    return live.stages.get("answer")


def test_a_paused_run_sends_nothing_until_it_may_go_on(sums):
    server = sums.serve(latency_ms=100)
    run = UnderWay(sums, sums.start(concurrency=2))
    run.until(lambda live: answers(live) and answers(live).done >= 4)
    run.ask("pause")
    run.until(lambda live: live.state == "paused" and answers(live).in_flight == 0 and answers(live).paused)
    time.sleep(0.3)  # a request may have been let out and not be on its way yet
    asked = server.stats()["chat_requests"]
    time.sleep(0.6)
    assert server.stats()["chat_requests"] == asked and answers(run.live()).done < 60
    run.ask("run")
    run.until(lambda live: live.state != "paused" and answers(live).done > asked)
    assert run.end().status == "completed" and run.live().state == "ended"


def test_a_cancelled_run_finishes_what_is_under_way_and_can_be_gone_on_with(sums):
    server = sums.serve(latency_ms=200)
    plan = sums.start(concurrency=8)
    run = UnderWay(sums, plan)
    run.until(lambda live: answers(live) and answers(live).done >= 8)
    run.ask("cancel")
    finished = run.end()
    assert (finished.status, finished.stopped_by) == ("partial", "run_cancelled")
    # Everything that was sent was received: nothing is lost, nothing unknown.
    attempts = "SELECT status, count(*) FROM v1.attempts WHERE run_id = ? AND role = 'candidate' GROUP BY 1"
    asked = server.stats()["chat_requests"]
    [(status, done)] = sums.query(attempts, plan.run_id)
    assert status == "ok" and 8 <= done < 60
    assert sums.query("SELECT unknown_attempts, answered FROM v1.runs WHERE run_id = ?", plan.run_id) == [(0, done)]
    assert carry_out(sums.services, plan).status == "completed"
    assert server.stats()["chat_requests"] - asked == 60 - done


def test_a_run_that_has_ended_cannot_be_steered(sums):
    sums.serve()
    plan, _ = sums.run()
    with pytest.raises(ByokError) as caught:
        ask_run(sums.services, plan.run_id, "pause")
    assert caught.value.code == "run_not_going" and plan.run_id in caught.value.hint


def test_what_is_seen_of_a_run_under_way_adds_up(sums):
    server = sums.serve(latency_ms=50, price="1000")
    # Six questions are refused once.
    refused = set()

    def once(number, question):
        if question.startswith("What") and question not in refused and len(refused) < 6:
            refused.add(question)
            return 429
        return None

    before = server.stats()
    run = UnderWay(sums, sums.start(concurrency=4))
    sums.faults["model"] = once
    seen = []
    run.until(lambda live: seen.append(live) or live.state == "ended")
    run.end()
    last = seen[-1].stages["answer"]
    assert (last.done, last.total, last.in_flight, last.failed) == (60, 60, 0, 0)
    assert last.errors == {"endpoint_rate_limited": len(refused)}
    assert all(0 <= answers(live).in_flight <= 4 for live in seen if answers(live))
    assert max(answers(live).limit or 0 for live in seen if answers(live)) in range(1, 5)
    spent = server.stats()
    tokens = [spent[name] - before[name] for name in ("prompt_tokens", "completion_tokens")]
    # The probe's tokens belong to another stage.
    assert last.prompt_tokens <= tokens[0] and last.completion_tokens <= tokens[1]
    bill = sums.query("SELECT sum(amount_usd) FROM v1.charges WHERE run_id = ? AND role = 'candidate'", run.plan.run_id)[0][0]
    assert seen[-1].usd == bill
    assert "done" in seen[-1].as_dict()["stages"]["answer"]


def leave_open(bench, plan, count):
    """Attempts of the first rows that were opened and never closed, as a process leaves them that is killed."""
    from byok.engine.attempts import attempt_id
    from byok.runs import RunFolder
    from byok.runs.rows import sample_id

    rows = list(bench.services.datasets.rows(plan.dataset.version, range(count)))
    with Journal(RunFolder.of(bench.services.home, plan.run_id).journal("answer", 0)) as journal:
        for row in rows:
            unit = sample_id(plan, row)
            journal.append(
                {
                    "k": "opened",
                    "attempt_id": attempt_id(unit, 1),
                    "unit": unit,
                    "sample_id": unit,
                    "number": 1,
                    "at": "2026-01-01T00:00:00Z",
                }
            )


@pytest.mark.parametrize("policy", ["resend", "hold"])
def test_attempts_of_unknown_outcome_are_counted_and_sent_again_only_where_the_policy_says_so(sums, policy):
    server = sums.serve()
    plan = sums.start(on_unknown=policy)
    leave_open(sums, plan, 5)
    before = server.stats()["chat_requests"]
    finished = carry_out(sums.services, plan)
    facts = sums.query("SELECT status, error_code, error_message, answered, unknown_attempts FROM v1.runs WHERE run_id = ?", plan.run_id)[0]
    lost = sums.query("SELECT count(*) FROM v1.attempts WHERE run_id = ? AND status = 'lost'", plan.run_id)[0][0]
    unknown = sums.query("SELECT count(DISTINCT attempt_id) FROM v1.charges WHERE run_id = ? AND evidence = 'unknown'", plan.run_id)[0][0]
    assert lost == unknown == facts[4] == 5
    asked = server.stats()["chat_requests"] - before - 1  # the probe
    if policy == "resend":
        assert finished.passed and asked == 60 and facts[:2] == ("completed", None)
        return
    assert asked == 55 and facts[:2] == ("partial", "unknown_held") and facts[3] == 55
    # Whoever decides that they may be paid for twice has them sent.
    change_run(sums.services, plan.run_id, Resumption(on_unknown="resend"))
    assert carry_out(sums.services, plan).passed
    assert server.stats()["chat_requests"] - before - 1 == 60


def test_two_processes_cannot_drive_one_run(sums, tmp_path):
    server = sums.serve(latency_ms=100)
    plan = start_run(sums.services, EvaluationRequest(model="model", dataset="questions", graders=["numeric"], concurrency=2), new_id())
    # This process holds it since it was started; another one is told so, and sends nothing.
    code = (
        "import sys; from byok.app import open_services; from byok.errors import ByokError; from byok.runs import resume_run\n"
        "try: resume_run(open_services(), sys.argv[1])\n"
        "except ByokError as error: print(error.code)"
    )
    before = server.stats()["chat_requests"]
    told = subprocess.run([sys.executable, "-c", code, plan.run_id], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "run_busy" and server.stats()["chat_requests"] == before
    assert carry_out(sums.services, plan).passed
    again = subprocess.run([sys.executable, "-c", code, plan.run_id], capture_output=True, text=True, check=True)
    assert again.stdout.strip() == ""


def test_what_a_dead_process_left_is_billed_and_reported_by_another(sums):
    server = sums.serve(latency_ms=50)
    plan = start_run(sums.services, EvaluationRequest(model="model", dataset="questions", graders=["numeric"], concurrency=4), new_id())
    from byok.runs import RunFolder

    RunFolder.of(sums.services.home, plan.run_id).control.end()  # lets go of the run, as a process does that dies
    folder = RunFolder.of(sums.services.home, plan.run_id)
    code = (
        "import asyncio, sys; from byok.app import open_services; from byok.runs import answer_shard, resume_run\n"
        "services = open_services(); resume_run(services, sys.argv[1]); asyncio.run(answer_shard(services, sys.argv[1], 0))"
    )
    before = server.stats()["chat_requests"]
    with subprocess.Popen([sys.executable, "-c", code, plan.run_id]) as child:
        end = time.monotonic() + 30
        while server.stats()["chat_requests"] - before < 12:
            assert time.monotonic() < end
            time.sleep(0.01)
        child.kill()
    assert not folder.control.ended
    close_run(sums.services, plan.run_id, "run_crashed")
    status, code, answered, unknown = sums.query(
        "SELECT status, error_code, answered, unknown_attempts FROM v1.runs WHERE run_id = ?", plan.run_id
    )[0]
    assert (status, code) == ("partial", "run_crashed") and 0 < answered < 60 and 1 <= unknown <= 4
    attempts = sums.query("SELECT count(*) FROM v1.attempts WHERE run_id = ?", plan.run_id)[0][0]
    charged = sums.query("SELECT count(DISTINCT attempt_id) FROM v1.charges WHERE run_id = ?", plan.run_id)[0][0]
    assert attempts == charged == answered + unknown
    close_run(sums.services, plan.run_id, "run_crashed")  # once is enough
    assert carry_out(sums.services, plan).passed
    assert sums.query("SELECT count(*), count(DISTINCT row_id) FROM v1.samples WHERE run_id = ?", plan.run_id) == [(60, 60)]
