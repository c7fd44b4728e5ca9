"""Statements: every charge on one of them, sums to the last digit, corrections apart, and a closed month that stands."""

import csv
import io
import json
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from byok.access import ScopeMissing
from byok.statements import BadMonth, Month, StatementDoesNotTie, close_month, month_statement
from byok.statements.close import EarlierMonthOpen, MonthIsClosed, MonthNotEnded, RunsGoOn
from byok.warehouse.rows import ClosedMonthRow
from byok_testing.money_rows import Ledger, at, correction, grant_row, judge_call, run_row, tokens

MAY, JUNE = Month(2026, 5), Month(2026, 6)


def statement(services, month=MAY, by="model"):
    with services.warehouse.reading() as results:
        return month_statement(results, services.actor.org_id, month, by, {services.actor.member_id: services.actor.email})


@pytest.fixture
def may(services, put, org):
    """A month with two models, two runs of two members, a call outside a run, unknown amounts, and a ledger."""
    ledger = Ledger(org)
    ledger.add("g-1", 5_000_000, "2026-04-20")
    ledger.use("g-1", 1_000_000, "2026-04-21", "r-0")
    given_back = ledger.add("g-3", 70_000, "2026-05-02")
    ledger.add("g-2", 2_000_000, "2026-05-01", "grant")
    ledger.use("g-1", 80_000, "2026-05-03T10:30:00", "r-1", held=100_000)
    ledger.write("hold", "2026-05-31T23:59:00", ("credit", "g-1", -300_000), ("held", "g-1", 300_000), run_id="r-9")
    ledger.write("expire", "2026-05-30", ("credit", "g-2", -2_000_000), ("breakage", "g-2", 2_000_000))
    ledger.write("reverse", "2026-05-04", ("credit", "g-3", -70_000), ("wash", None, 70_000), reverses=given_back)
    ledger.add("g-4", 1, "2026-06-01")
    unknown = tokens(org, "2026-05-03T10:03:00", 500, None, run_id="r-1", model_key="other", model_id="m-3")
    put(
        run_row(org, "r-1", "2026-05-03T10:00:00", services.actor.member_id),
        run_row(org, "r-2", "2026-05-04T10:00:00", "gone", dataset_name="=cmd()"),
        tokens(org, "2026-05-03T10:01:00", 1000, "0.1", run_id="r-1"),
        tokens(org, "2026-05-31T23:59:59", 3, "0.7", run_id="r-2", token_type="output"),
        tokens(org, "2026-06-01T00:00:00", 7, "0.7", run_id="r-2"),
        tokens(org, "2026-05-05T00:00:00", 11, "3"),
        tokens(org, "2026-05-05T00:01:00", None, None),
        unknown,
        judge_call(org, "2026-05-03T10:02:00", calls=2, run_id="r-1"),
        *ledger.rows,
        grant_row(org, "g-1", 5_000_000, "2026-04-20", paid="10"),
    )
    return unknown


def test_a_month_of_which_no_amount_is_known_comes_to_no_amount(services, put, org, byok):
    put(tokens(org, "2026-05-05", 1000, None))
    told = json.loads(byok("bill", "statement", "--month", "2026-05", "--json")[1])["statement"]
    assert (told["provider"]["total_usd"], told["provider"]["unpriced_charges"], told["platform"]["total_ecu"]) == (None, 1, "0")
    assert "unknown" in byok("bill", "statement", "--month", "2026-05")[1]


def test_a_statement_has_every_charge_of_its_month_and_the_way_of_the_credit(services, may):
    made = statement(services)
    assert [(line.plane, line.name, line.amount_usd, line.amount_micro_ecu, line.unpriced) for line in made.lines] == [
        ("provider", "mine", Decimal("0.0001351"), None, 1),
        ("provider", "other", None, None, 1),
        ("ecu", "referee", None, 80_000, 0),
    ]
    assert (made.totals.provider_usd, made.totals.unpriced_charges, made.totals.micro_ecu) == (Decimal("0.0001351"), 2, 80_000)
    credit = made.credit
    assert (credit.opening, credit.top_ups, credit.grants, credit.taken_back) == (4_000_000, 70_000, 2_000_000, 70_000)
    assert (credit.used, credit.expired, credit.closing, credit.held) == (80_000, 2_000_000, 3_920_000, 300_000)
    assert statement(services, JUNE).credit.opening == credit.closing
    assert [(one.model_key, one.reason) for one in made.unpriced] == [("other", "no_price"), ("mine", "no_usage")]
    assert "byok price set other" in made.unpriced[0].fix and "reconcile" in made.unpriced[1].fix


def test_the_splits_of_a_month_have_the_same_total(services, may):
    totals = {statement(services, by=by).totals for by in ("model", "member", "job", "day")}
    assert len(totals) == 1
    members = {line.name for line in statement(services, by="member").of("provider")}
    assert members == {services.actor.email, "gone", None}
    jobs = {line.name: (line.model_key, line.dataset_name, line.started_at) for line in statement(services, by="job").of("provider")}
    assert jobs["r-1"] == ("mine", "questions", at("2026-05-03T10:00:00")) and jobs[None] == (None, None, None)
    assert [line.name for line in statement(services, by="day").of("provider")] == ["2026-05-03", "2026-05-05", "2026-05-31"]


def test_the_command_says_the_same_in_every_format(services, may, byok, tmp_path):
    code, shown, told = byok("bill", "statement", "--month", "2026-05")
    assert code == 0 and "0.0001351" in shown and "0.08" in shown and "byok price set other" in told and "open" in shown
    code, shown, _ = byok("bill", "statement", "--month", "2026-05", "--by", "job", "--json")
    same = json.loads(byok("bill", "statement", "--month", "2026-05", "--by", "job", "--format", "json")[1])
    made = json.loads(shown)["statement"]
    assert same["statement"] == made and made["provider"]["total_usd"] == "0.0001351" and made["platform"]["total_micro_ecu"] == 80_000
    assert sum(Decimal(line["amount_usd"] or 0) for line in made["provider"]["lines"]) == Decimal("0.0001351")
    code, shown, _ = byok("bill", "statement", "--month", "2026-05", "--by", "job", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(shown)))
    assert sum(Decimal(row["amount_usd"] or 0) for row in rows) == Decimal("0.0001351")
    assert {row["dataset_name"] for row in rows} == {"questions", "'=cmd()", ""}
    assert next(row["amount_micro_ecu"] for row in rows if (row["section"], row["name"]) == ("credit", "closing")) == "3920000"
    page = tmp_path / "may.html"
    assert byok("bill", "statement", "--month", "2026-05", "--output", str(page))[0] == 0
    text = page.read_text()
    assert "0.0001351" in text and "http" not in text.replace("http-equiv", "") and "byok price set other" in text
    assert byok("bill", "statement", "--month", "2026-05", "--output", str(page), "--json")[1].find("file_exists") > 0
    assert byok("bill", "statement", "--month", "2026-05", "--output", str(page), "--force")[0] == 0
    assert byok("bill", "statement", "--output", str(tmp_path / "x"))[0] == 2


def test_a_page_shows_names_as_text(services, put, org, byok):
    name = "<script>alert(1)</script>"
    put(run_row(org, "r-1", "2026-05-03", dataset_name=name), tokens(org, "2026-05-03", 1, run_id="r-1"))
    shown = byok("bill", "statement", "--month", "2026-05", "--by", "job", "--format", "html")[1]
    assert name not in shown and "&lt;script&gt;" in shown


@pytest.mark.parametrize("text", ["2026-13", "2026-00", "26-05", "2026-5", "", "2026-05-01", "٢٠٢٦-05", "9999-12"])
def test_what_is_no_month_is_refused(text, byok):
    with pytest.raises(BadMonth):
        Month.parse(text)
    code, shown, _ = byok("bill", "statement", "--month", text, "--json")
    assert code == 2 and json.loads(shown)["error"]["code"] == "bad_month"


def test_months_follow_each_other():
    assert Month(2026, 12).end == Month(2027, 1).start == at("2027-01-01") and str(Month.parse("2026-02")) == "2026-02"


# --- closing


def test_what_comes_after_closing_is_a_correction_on_a_later_statement(services, put, org, may, byok):
    code, shown, _ = byok("bill", "close", "2026-05", "--json")
    assert code == 0 and json.loads(shown)["closed"]["charges"] == 6
    before = statement(services)
    assert before.closing and before.closing.member == services.actor.email and before.differences == {}
    now = before.closing.closed_at + timedelta(seconds=5)
    late = tokens(org, "2026-05-20", 1000, "1", recorded_at=now)
    put(late, correction(may, "0.004", now.isoformat()[:19]))
    after = statement(services)
    assert (after.lines, after.totals, after.differences) == (before.lines, before.totals, {})
    later = statement(services, Month.of(now))
    found = [(line.charge_class, line.used_in, line.name, line.amount_usd) for line in later.of("provider") if line.charge_class]
    assert found == [("correction", "2026-05", "mine", Decimal("0.001")), ("correction", "2026-05", "other", Decimal("0.004"))]
    assert later.totals.unpriced_charges == 0
    # What was unknown when it was closed is told as it was then, without a command that has been run since.
    assert after.totals.unpriced_charges == 2 and [one.model_key for one in after.unpriced] == ["mine"]
    assert "correction of 2026-05" in byok("bill", "statement", "--month", str(Month.of(now)))[1]
    (entry,) = [one for one in services.audit.entries(org) if one.action == "month.close"]
    assert entry.target == "2026-05" and services.audit.verify(org).bad_seq is None


def test_a_correction_in_an_open_month_is_a_line_of_its_own_and_prices_the_charge(services, put, org, may):
    put(correction(may, "0.004", "2026-05-20"))
    made = statement(services)
    assert made.totals.unpriced_charges == 1 and made.totals.provider_usd == Decimal("0.0041351")
    assert [(line.name, line.used_in) for line in made.lines if line.charge_class] == [("other", "2026-05")]


def test_a_month_is_closed_once_in_order_and_when_nothing_goes_on(services, put, org, may):
    with pytest.raises(MonthNotEnded):
        close_month(services, Month.parse(None))
    with pytest.raises(EarlierMonthOpen, match="2026-05"):
        close_month(services, JUNE)
    put(run_row(org, "r-8", "2026-04-03", status="running", finished_at=None))
    with pytest.raises(RunsGoOn):
        close_month(services, MAY)
    put(run_row(org, "r-8", "2026-04-03", revision=3))
    assert close_month(services, MAY).provider_usd == Decimal("0.0001351")
    with pytest.raises(MonthIsClosed):
        close_month(services, MAY)
    close_month(services, JUNE)
    assert len([one for one in services.audit.entries(org) if one.action == "month.close"]) == 2


def test_closing_takes_the_right_to_change_bills(services, may):
    from dataclasses import replace

    reader = replace(services.actor, scopes=frozenset({"billing:read"}))
    with pytest.raises(ScopeMissing):
        close_month(replace(services, actor=reader), MAY)
    assert statement(services).closing is None


def test_a_closing_that_was_cut_off_is_completed_with_the_time_of_the_first_try(services, put, org, may, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(type(services.warehouse), "write_segment", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError):
            close_month(services, MAY)
    assert statement(services).closing is None
    from byok.clock import utcnow

    put(tokens(org, "2026-05-20", 1000, "1", recorded_at=utcnow()))
    row = close_month(services, MAY)
    made = statement(services)
    assert row.charges == 6 and made.differences == {} and made.closing.closed_at == row.closed_at
    assert len([one for one in services.audit.entries(org) if one.action == "month.close"]) == 1


def test_a_closed_statement_that_is_not_as_it_was_says_so(services, put, org, may, byok):
    put(
        ClosedMonthRow(
            org_id=org,
            month="2026-05",
            closed_at=at("2026-06-02"),
            member_id="x",
            charges=6,
            provider_usd=Decimal("0.0002"),
            unpriced_charges=2,
            micro_ecu=80_000,
            recorded_at=at("2026-06-02"),
        )
    )
    shown = byok("bill", "statement", "--month", "2026-05", "--json")[1]
    closed = json.loads(shown)["statement"]["closed"]
    assert not closed["ties"] and closed["differences"] == {"provider_usd": {"closed": "0.0002", "now": "0.0001351"}}
    assert "not as it was closed" in byok("bill", "statement", "--month", "2026-05")[2]


def test_a_ledger_that_does_not_add_up_is_told(services, put, org):
    ledger = Ledger(org)
    ledger.add("g-1", 5, "2026-05-20")
    put(ledger.rows[0])
    with pytest.raises(StatementDoesNotTie):
        statement(services)


MOMENTS = st.integers(0, 120 * 24 * 60).map(lambda minutes: at("2026-03-01") + timedelta(minutes=minutes))
CHARGE = st.tuples(
    MOMENTS,
    st.sampled_from(["r-1", "r-2", None]),
    st.sampled_from(["mine", "other"]),
    st.none() | st.integers(0, 10**9),
    st.none() | st.decimals("0", "1000", places=9).map(str),
    st.integers(0, 60 * 24 * 60),
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(charges=st.lists(CHARGE, max_size=30), closed=st.integers(0, 3))
def test_each_charge_is_on_one_statement_and_all_splits_have_one_total(charges, closed, tmp_path_factory):
    from byok.warehouse import Warehouse

    folder = tmp_path_factory.mktemp("warehouse")
    warehouse = Warehouse(folder / "warehouse", folder / "spool")
    rows = [
        tokens("o", when, quantity, price, run_id=run, model_key=model, recorded_at=when + timedelta(minutes=late))
        for when, run, model, quantity, price, late in charges
    ]
    closings = [
        ClosedMonthRow(
            org_id="o",
            month=f"2026-{number:02}",
            closed_at=Month(2026, number).end + timedelta(days=2),
            member_id="x",
            charges=0,
            provider_usd=Decimal(0),
            unpriced_charges=0,
            micro_ecu=0,
            recorded_at=Month(2026, number).end,
        )
        for number in range(3, 3 + closed)
    ]
    warehouse.migrate()
    warehouse.write_segment([*rows, *closings])
    warehouse.drain()
    with warehouse.reading() as results:
        months = [Month(2026, number) for number in range(3, 10)]
        made = {by: [month_statement(results, "o", month, by, {}) for month in months] for by in ("model", "member", "job", "day")}
    assert len({tuple(one.totals for one in ones) for ones in made.values()}) == 1
    assert sum(one.totals.charges for one in made["model"]) == len(rows)
    assert sum(one.totals.provider_usd for one in made["model"]) == sum((row.amount_usd or 0 for row in rows), Decimal(0))
    assert sum(one.totals.unpriced_charges for one in made["model"]) == sum(row.amount_usd is None for row in rows)
