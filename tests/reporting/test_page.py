"""The report page: what models wrote stays text, nothing is fetched, the numbers are those of the warehouse, and a browser shows it."""

import os
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser

import orjson
import pytest

from byok.billing import RateCard, TokenRates, charges_for
from byok.engine.plan import ModelRef
from byok.reporting import RunAmbiguous, RunNotFound, find_run, report_page, run_summary
from byok.warehouse import Warehouse
from byok.warehouse.rows import AttemptRow, RunRow, SampleRow, ScoreRow, VerdictRow

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RUN = "019f0000-aaaa-7000-8000-000000000001"
MODEL = ModelRef(
    id="m-1",
    key="mine",
    revision=1,
    remote_id="mine-1",
    base_url="https://api.example/v1",
    origin="https://api.example",
    max_tokens=None,
    extra_payload={},
    public=False,
    price_input=Decimal("0.15"),
    price_output=Decimal("0.60"),
    key_version=1,
    capabilities={},
)
CARD = RateCard("2026-01", NOW, {"default": 50_000}, {"default": TokenRates(Decimal("1.0"), Decimal("4.0"))})

# (question, answer, status, passed)
PLAIN = [
    ("What is six times seven, in one word?", "forty-two", "answered", True),
    ("What is two plus two?", "five", "answered", False),
    ("Name a word for a small house.", "cottage", "answered", True),
    ("Say the word.", None, "failed", None),
    ("Say nothing.", "", "empty", None),
    ("How heavy is the moon?", "I cannot tell.", "answered", None),
]
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "</dd></dl></details><img src=x onerror=alert(3)>",
    '" onmouseover="alert(4)',
    "<a href=https://evil.example/x>word</a><iframe src=https://evil.example></iframe>",
    "<style>*{display:none}</style><meta http-equiv=refresh content='0;url=https://evil.example'>",
    "safe\u202egnitirw\u202c and \u2066more\u2069",
    "\x1b[31mred\x1b[0m and \x07bell \x9b2J",
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    "x" * 1_000_000,
]


def run_row(run=RUN, *, started=NOW, org="acme", model="mine", **other):
    values = {
        "revision": 1,
        "status": "completed",
        "planned": 6,
        "answered": 4,
        "empty": 1,
        "refused": 0,
        "failed": 1,
        "error_code": None,
        "error_message": None,
        "finished_at": started + timedelta(seconds=90),
        "config": orjson.dumps({"min_scores": {}}).decode(),
    } | other
    return RunRow(
        org_id=org,
        run_id=run,
        flow_run_id=None,
        member_id="me",
        model_id="m-1",
        model_key=model,
        dataset_id="d-1",
        dataset_name="questions",
        dataset_version="0123456789abcdef" * 4,
        fingerprint="f",
        started_at=started,
        recorded_at=started,
        **values,
    )


def sample_row(number, text, output, status="answered", *, run=RUN, org="acme"):
    good = status == "answered"
    return SampleRow(
        org_id=org,
        run_id=run,
        sample_id=f"{run}-s{number}",
        row_number=number,
        row_id=f"row-{number}",
        row_hash="h",
        input=text,
        expected="42",
        context=None,
        output=output,
        reasoning=None,
        status=status,
        finish_reason="stop" if good else None,
        error_code="endpoint_timeout" if status == "failed" else None,
        attempts=1,
        latency_ms=100.0 * (number + 1) if good else None,
        prompt_tokens=1000 if good else None,
        completion_tokens=10 if good else None,
        occurred_at=NOW,
        recorded_at=NOW,
    )


def attempt_row(number, status="answered", *, role="candidate", run=RUN):
    good = status != "failed"
    return AttemptRow(
        org_id="acme",
        attempt_id=f"{run}-a{number}-{role}",
        run_id=run,
        role=role,
        model_id="m-1",
        model_key="mine",
        sample_id=f"{run}-s{number}",
        judge="one" if role == "judge" else None,
        judge_version=1 if role == "judge" else None,
        number=1,
        status="ok" if good else "error",
        error_code=None if good else "endpoint_timeout",
        http_status=200 if good else None,
        latency_ms=100.0,
        prompt_tokens=1000 if good else None,
        completion_tokens=10 if good else None,
        cached_tokens=None,
        reasoning_tokens=None,
        usage_class="reported" if good else "missing",
        provider_request_id=None,
        key_version=1,
        opened_at=NOW,
        closed_at=NOW,
        recorded_at=NOW,
    )


def verdict_row(number, passed, *, grader="numeric", reasoning=None, label=None, run=RUN):
    return VerdictRow(
        org_id="acme",
        run_id=run,
        verdict_id=f"{run}-v{number}-{grader}",
        sample_id=f"{run}-s{number}",
        grader=grader,
        kind="code" if grader == "numeric" else "judge",
        judge_version=None if grader == "numeric" else 1,
        judge_model_key=None if grader == "numeric" else "mine",
        outcome="unscored" if passed is None else "ok",
        score=None if passed is None else float(passed),
        passed=passed,
        label=label,
        reasoning=reasoning,
        attempt_id=None,
        occurred_at=NOW,
        recorded_at=NOW,
    )


def score_row(grader="numeric", run=RUN, score=2 / 3):
    return ScoreRow(
        org_id="acme",
        run_id=run,
        grader=grader,
        revision=1,
        kind="code" if grader == "numeric" else "judge",
        metric="pass_rate",
        score=score,
        low=0.2077,
        high=0.9385,
        method="wilson",
        planned=6,
        answered=4,
        empty=1,
        refused=0,
        failed=1,
        unscored=1,
        scored=3,
        worst=1 / 3,
        best=5 / 6,
        recorded_at=NOW,
    )


@pytest.fixture
def warehouse(tmp_path):
    made = Warehouse(tmp_path / "warehouse", tmp_path / "spool")
    made.migrate()
    return made


@pytest.fixture
def page(warehouse):
    """Store a run with these rows and give its page."""

    def make(rows, *, reasoning=None, label=None, **run):
        stored = [run_row(**run), score_row(), score_row("one", score=0.5)]
        for number, (text, output, status, passed) in enumerate(rows):
            attempts = [attempt_row(number, status)]
            stored.append(sample_row(number, text, output, status))
            if status == "answered":
                attempts.append(attempt_row(number, role="judge"))
                stored += [verdict_row(number, passed), verdict_row(number, passed, grader="one", reasoning=reasoning, label=label)]
            stored += attempts + [charge for one in attempts for charge in charges_for(one, MODEL, CARD)]
        warehouse.write_segment(stored)
        warehouse.drain()
        return report_page(warehouse, "acme", RUN)

    return make


class Page(HTMLParser):
    """What a browser would see of a page: its tags, and the text of its rows."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.shown, self._skip = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._skip = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._skip = False

    def handle_data(self, data):
        if not self._skip:
            self.shown.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def test_what_a_model_wrote_is_never_markup(page):
    text = page([(hostile, hostile, "answered", True) for hostile in HOSTILE], reasoning=HOSTILE[0], label=HOSTILE[1])
    clean = Page(text)
    assert len(clean.all("script")) == len(clean.all("style")) == 1
    assert len(clean.all("details")) == len(HOSTILE)
    assert not [tag for tag in ("img", "iframe", "a", "link", "object", "embed", "form", "base") if clean.all(tag)]
    assert not [name for _, attrs in clean.tags for name in attrs if name.startswith("on")]
    assert [attrs.get("http-equiv") for attrs in clean.all("meta")].count("refresh") == 0
    assert "<script>alert" not in text
    shown = "".join(clean.shown)
    for hostile in HOSTILE[:6] + HOSTILE[8:9]:
        assert shown.count(hostile) >= 2, hostile


def test_hidden_and_control_characters_are_made_visible(page):
    text = page([(hostile, hostile, "answered", True) for hostile in HOSTILE])
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]", text)
    assert "safe\ufffdgnitirw\ufffd" in text
    assert "\ufffd[31mred" in text


def test_a_huge_text_is_cut_and_says_so(page):
    text = page([("question", "x" * 1_000_000, "answered", True)])
    assert len(text) < 200_000
    assert "(1000000 characters)" in text


def test_a_hostile_name_is_text_in_the_head_too(page):
    text = page(PLAIN, model="</title><script>alert(1)</script>", status="failed", error_code="x", error_message="<b>no</b>")
    clean = Page(text)
    assert len(clean.all("script")) == 1
    assert not clean.all("i")
    assert "<b>no</b>" in "".join(clean.shown)


def test_nothing_is_fetched(page):
    text = page(PLAIN)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", text)
    clean = Page(text)
    for tag, attrs in clean.tags:
        for name in ("src", "href", "xlink:href", "action", "srcset", "data", "poster"):
            assert not re.match(r"\s*(?:https?:)?//", attrs.get(name) or ""), (tag, attrs)
    (policy,) = [attrs["content"] for attrs in clean.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"].startswith("'sha256-")
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    assert not any(word in policy for word in ("unsafe-inline", "unsafe-eval", "http:", "https:", "*"))
    assert clean.tags.index(("meta", clean.all("meta")[1])) < [tag for tag, _ in clean.tags].index("style")


def test_the_page_shows_the_numbers(page):
    shown = " ".join(" ".join(Page(page(PLAIN, reasoning="It is right.")).shown).split())
    assert "mine on questions completed" in shown
    assert "2026-03-01 12:00:00 UTC" in shown
    assert "90.0 s" in shown
    assert "4 / 6" in shown
    assert "0.6667" in shown
    assert "0.2077 – 0.9385" in shown
    assert "0.3333 – 0.8333" in shown
    assert "250 / 555 ms" in shown
    # 9 answered requests of 1000 + 10 tokens; the one that timed out is unknown.
    assert "0.001404" in shown
    assert "2 charges of unknown amount not in it" in shown
    assert "(1 unknown)" in shown
    assert "0.2 ECU to the platform" in shown
    assert "one pass It is right." in shown


def test_each_row_has_its_result(page):
    results = [row["data-result"] for row in Page(page(PLAIN)).all("details")]
    assert results == ["passed", "not passed", "passed", "failed", "empty", "unscored"]


def test_plots_are_drawn_in_the_page(page):
    assert len(Page(page(PLAIN)).all("svg")) == 3


def test_a_run_without_anything_has_a_page(warehouse):
    warehouse.write_segment(
        [run_row(status="running", answered=None, empty=None, refused=None, failed=None, finished_at=None)],
    )
    warehouse.drain()
    clean = Page(report_page(warehouse, "acme", RUN))
    assert not clean.all("svg")
    assert "0 rows" in "".join(clean.shown)


def test_more_rows_than_fit_are_told(page, monkeypatch):
    monkeypatch.setattr("byok.reporting.page.MAX_ROWS", 4)
    clean = Page(page(PLAIN))
    assert len(clean.all("details")) == 4
    shown = "".join(clean.shown)
    assert "The first 4 of 6 rows." in shown
    assert f"SELECT * FROM v1.samples WHERE run_id = '{RUN}'" in shown


def test_as_many_rows_as_fit_need_no_note(page):
    assert "The first" not in "".join(Page(page(PLAIN)).shown)


def test_summary(page, warehouse):
    page(PLAIN, config=orjson.dumps({"min_scores": {"numeric": 0.5, "one": 0.9, "absent": 0.1}}).decode())
    found = run_summary(warehouse, "acme", RUN)
    assert (found.planned, found.answered, found.empty, found.refused, found.failed, found.not_asked) == (6, 4, 1, 0, 1, 0)
    assert [score.grader for score in found.scores] == ["numeric", "one"]
    assert (found.scores[0].score, found.scores[0].low, found.scores[0].high) == (2 / 3, 0.2077, 0.9385)
    assert found.below == ("one", "absent")
    # Latencies 100, 200, 300 and 600.
    assert (found.latency_p50_ms, found.latency_p95_ms) == (250.0, pytest.approx(555.0))
    assert (found.prompt_tokens, found.completion_tokens, found.attempts) == (9000, 90, 10)
    assert found.provider_usd == 9 * (Decimal("0.00015") + Decimal("0.000006"))
    assert (found.unpriced_charges, found.micro_ecu) == (2, 4 * 50_000)
    shape = found.as_dict()
    assert (shape["ecu"], shape["run_id"], shape["scores"][0]["grader"]) == ("0.2", RUN, "numeric")


def test_a_run_that_is_going_is_below_nothing(warehouse):
    config = orjson.dumps({"min_scores": {"numeric": 0.5}}).decode()
    going = {"status": "running", "answered": None, "empty": None, "refused": None, "failed": None, "finished_at": None}
    warehouse.write_segment([run_row(config=config, **going)])
    warehouse.drain()
    found = run_summary(warehouse, "acme", RUN)
    assert (found.below, found.not_asked, found.provider_usd, found.micro_ecu, found.attempts) == ((), None, None, None, 0)
    assert found.as_dict()["ecu"] is None


def test_find_run(warehouse):
    ids = [f"019f0000-{part}-7000-8000-000000000001" for part in ("aaaa", "aabb", "bbbb")]
    # The newest is neither the first nor the last by name.
    starts = [NOW, NOW + timedelta(hours=2), NOW + timedelta(hours=1)]
    warehouse.write_segment(
        [run_row(run, started=start) for run, start in zip(ids, starts, strict=True)]
        + [run_row("019f1111-cccc-7000-8000-000000000001", started=NOW + timedelta(days=1), org="other")]
    )
    warehouse.drain()
    assert find_run(warehouse, "acme", "latest") == ids[1]
    assert find_run(warehouse, "acme", ids[0]) == ids[0]
    assert find_run(warehouse, "acme", "019f0000-b") == ids[2]
    assert find_run(warehouse, "acme", "019F0000-AAB") == ids[1]
    with pytest.raises(RunAmbiguous, match="019f0000-aa"):
        find_run(warehouse, "acme", "019f0000-aa")
    for name in ("019f1", "019f1111-cccc-7000-8000-000000000001", "%", "019f0000_"):
        with pytest.raises(RunNotFound):
            find_run(warehouse, "acme", name)
    with pytest.raises(RunNotFound):
        find_run(warehouse, "nobody", "latest")
    for call in (run_summary, report_page):
        with pytest.raises(RunNotFound):
            call(warehouse, "other", ids[0])


@pytest.fixture
def browse(tmp_path):
    """Open a page in a real browser; gives its document and what it logged."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "this test needs chromium on the PATH (Debian: apt-get install chromium)"

    def run(text, fragment="", *arguments):
        path = tmp_path / "report.html"
        path.write_text(text, encoding="utf-8")
        found = subprocess.run(
            [
                *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
                *("--enable-logging=stderr", "--v=0", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000"),
                *(arguments or ("--dump-dom",)),
                path.as_uri() + fragment,
            ],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"HOME": str(tmp_path)},
        )
        assert found.returncode == 0, found.stderr[-2000:]
        return found.stdout, found.stderr

    return run


def rows_shown(document):
    clean = Page(document)
    return [number for number, row in enumerate(clean.all("details")) if "hidden" not in row], "".join(clean.shown)


def test_a_browser_filters_by_the_address(page, browse):
    document, _ = browse(page(PLAIN), "#q=word&result=passed")
    found, shown = rows_shown(document)
    assert found == [0, 2]
    assert "2 of 6 rows" in shown


def test_a_browser_shows_all_rows_without_a_filter(page, browse):
    document, _ = browse(page(PLAIN))
    found, shown = rows_shown(document)
    assert found == [0, 1, 2, 3, 4, 5]
    assert "6 of 6 rows" in shown


def test_a_browser_runs_nothing_of_what_a_model_wrote_and_breaks_no_policy(page, browse):
    rows = PLAIN + [(f"word {hostile}", f"{hostile} <script>document.title='owned'</script>", "answered", True) for hostile in HOSTILE]
    document, logged = browse(page(rows, reasoning=HOSTILE[2]), "#q=%22%20onfocus=alert(1)%20<script>&result=nonsense")
    clean = Page(document)
    assert len(clean.all("script")) == 1
    assert "<title>mine on questions</title>" in document
    assert "Content Security Policy" not in logged
    assert "CONSOLE" not in logged, logged


def test_the_policy_stops_a_script_that_slips_in(page, browse):
    text = page(PLAIN).replace("</body>", "<script>document.title='owned'</script></body>")
    document, logged = browse(text)
    assert "<title>mine on questions</title>" in document
    assert "Content Security Policy" in logged
