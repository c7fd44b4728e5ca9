"""The views of money, on rows whose sums are known to the last digit: corrections, closed months, credit, what a correct answer costs."""

from datetime import UTC, date, datetime
from decimal import Decimal

import duckdb
import pytest

ORG = "org-1"
NOVEMBER = datetime(2026, 11, 10, 12, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 5, 9, tzinfo=UTC)
CLOSING = datetime(2026, 12, 3, 8, tzinfo=UTC)


@pytest.fixture
def charge(make):
    """A charge for a thousand input tokens of the model `llama` in run-1, on the provider's bill, with no known price unless told."""

    def build(charge_id, **given):
        plain = {
            "org_id": ORG,
            "run_id": "run-1",
            "plane": "provider",
            "role": "candidate",
            "attempt_id": f"a-{charge_id}",
            "model_id": "m-1",
            "model_key": "llama",
            "sku": "tokens/input",
            "quantity": 1000,
            "unit_price_usd_per_mtok": None,
            "amount_usd": None,
            "rate_micro_ecu": None,
            "amount_micro_ecu": None,
            "price_version": "none",
            "evidence": "unknown",
            "occurred_at": NOVEMBER,
            "recorded_at": NOVEMBER,
            "unit": "token",
            "token_type": "input",
            "unit_price_usd": None,
            "price_units": None,
            "price_source": "none",
            "corrects": None,
        }
        return make("charge", charge_id=charge_id, **(plain | given))

    return build


@pytest.fixture
def judge_call(charge):
    """A judge call for 50,000 micro-ECU."""

    def build(charge_id, **given):
        ecu = {"plane": "ecu", "role": "judge", "sku": "judge_call", "unit": "call", "token_type": None, "quantity": 1}
        return charge(charge_id, **(ecu | {"amount_micro_ecu": 50_000, "rate_micro_ecu": Decimal(50_000)} | given))

    return build


@pytest.fixture
def closed(make):
    """November, closed on 3 December."""
    return make(
        "closed_month",
        org_id=ORG,
        month="2026-11",
        closed_at=CLOSING,
        charges=3,
        provider_usd=Decimal("0.25"),
        unpriced_charges=2,
        micro_ecu=0,
    )


@pytest.fixture
def load(warehouse):
    """Load rows, and give what queries find then."""

    def loaded(*rows):
        warehouse.write_segment(rows)
        warehouse.drain()
        return lambda sql: warehouse.query(sql).rows

    return loaded


USD = Decimal("0.25")
LATER = {"amount_usd": Decimal("0.125"), "recorded_at": DECEMBER, "evidence": "computed", "price_source": "own"}


def three(charge):
    """One priced charge and two without a price."""
    return charge("c1", amount_usd=USD), charge("c2"), charge("c3", sku="tokens/output", token_type="output", quantity=7)


def test_a_month_that_is_open_has_all_that_was_used_in_it(load, charge, judge_call):
    query = load(*three(charge), judge_call("e1"), judge_call("e2"))
    assert query("SELECT DISTINCT billing_month, charge_class FROM v1.charges") == [("2026-11", None)]
    assert query(
        "SELECT month, plane, role, sku, charge_class, charges, quantity, amount_usd, unpriced_charges, amount_micro_ecu"
        " FROM v1.monthly_cost ORDER BY plane DESC, sku"
    ) == [
        ("2026-11", "provider", "candidate", "tokens/input", None, 2, 2000, USD, 1, None),
        ("2026-11", "provider", "candidate", "tokens/output", None, 1, 7, None, 1, None),
        ("2026-11", "ecu", "judge", "judge_call", None, 2, 2, None, 0, 100_000),
    ]


def test_a_correction_gives_its_charge_an_amount_and_counts_no_tokens_again(load, charge):
    query = load(*three(charge), charge("k2", corrects="c2", **LATER))
    assert query(
        "SELECT sku, charge_class, charges, quantity, amount_usd, unpriced_charges FROM v1.monthly_cost"
        " ORDER BY sku, charge_class NULLS FIRST"
    ) == [
        ("tokens/input", None, 2, 2000, USD, 1),
        ("tokens/input", "correction", 1, None, Decimal("0.125"), -1),
        ("tokens/output", None, 1, 7, None, 1),
    ]
    assert query("SELECT sku, charges, quantity, amount_usd, unpriced_charges FROM v1.daily_cost ORDER BY sku") == [
        ("tokens/input", 2, 2000, Decimal("0.375"), 0),
        ("tokens/output", 1, 7, None, 1),
    ]
    assert query("SELECT lines, total_usd, unpriced_charges FROM v1.bills") == [(4, Decimal("0.375"), 1)]
    assert query("SELECT sku, charges, quantity FROM v1.unpriced_usage") == [("tokens/output", 1, 7)]


def test_what_comes_after_the_closing_stands_on_the_month_in_which_it_came(load, charge, closed):
    """The closed statement stays as it was; the next one has the late charge and the correction, and the two together have all."""
    late = charge("c4", amount_usd=Decimal("0.5"), recorded_at=DECEMBER)
    query = load(*three(charge), charge("k2", corrects="c2", **LATER), late, closed)
    assert query("SELECT charge_id, billing_month, charge_class FROM v1.charges ORDER BY 1") == [
        ("c1", "2026-11", None),
        ("c2", "2026-11", None),
        ("c3", "2026-11", None),
        ("c4", "2026-12", "correction"),
        ("k2", "2026-12", "correction"),
    ]
    by_month = "CAST(sum(charges) AS BIGINT), CAST(sum(quantity) AS BIGINT), sum(amount_usd), CAST(sum(unpriced_charges) AS BIGINT)"
    assert query(f"SELECT month, {by_month} FROM v1.monthly_cost GROUP BY month ORDER BY month") == [
        ("2026-11", 3, 2007, USD, 2),
        ("2026-12", 2, 1000, Decimal("0.625"), -1),
    ]
    assert query("SELECT DISTINCT day, month FROM v1.daily_cost, v1.closed_months") == [(NOVEMBER.date(), "2026-11")]
    assert query(
        "SELECT c.charges, c.provider_usd, c.unpriced_charges FROM v1.closed_months c"
        f" JOIN (SELECT month, {by_month} FROM v1.monthly_cost GROUP BY month) AS m(month, charges, quantity, usd, unpriced)"
        " ON m.month = c.month AND m.charges = c.charges AND m.usd = c.provider_usd AND m.unpriced = c.unpriced_charges"
    ) == [(3, USD, 2)]


@pytest.mark.parametrize(
    ("recorded", "month"),
    [
        (CLOSING.replace(microsecond=0), "2026-11"),  # what was written in the moment of closing was seen by it
        (CLOSING.replace(microsecond=1), "2026-12"),
        (datetime(2027, 1, 1, tzinfo=UTC), "2027-01"),
    ],
)
def test_the_moment_of_closing_decides(load, charge, closed, recorded, month):
    query = load(charge("c1", amount_usd=USD, recorded_at=recorded), closed)
    assert query("SELECT billing_month, charge_class FROM v1.charges") == [(month, None if month == "2026-11" else "correction")]


def test_months_are_those_of_utc_wherever_it_is_asked(load, charge, warehouse):
    load(charge("c1", amount_usd=USD, occurred_at=datetime(2026, 11, 30, 23, 59, 59, 999999, tzinfo=UTC)))
    with duckdb.connect(str(warehouse.snapshot), read_only=True) as connection:
        connection.execute("SET TimeZone = 'Pacific/Auckland'")
        found = connection.execute("SELECT billing_month, day FROM v1.charges, v1.daily_cost").fetchall()
        assert connection.execute("SELECT month FROM v1.monthly_cost").fetchall() == [("2026-11",)]
    assert found == [("2026-11", date(2026, 11, 30))]


def test_another_organisation_s_closed_month_moves_nothing(load, make, charge):
    query = load(charge("c1", recorded_at=DECEMBER), make("closed_month", org_id="org-2", month="2026-11", closed_at=CLOSING))
    assert query("SELECT billing_month, charge_class FROM v1.charges") == [("2026-11", None)]


def unpriced_everywhere(query):
    """How many charges each view counts as unpriced."""
    return [
        query(f"SELECT CAST(coalesce(sum({column}), 0) AS BIGINT) FROM v1.{view}")[0][0]
        for view, column in (
            ("bills", "unpriced_charges"),
            ("daily_cost", "unpriced_charges"),
            ("monthly_cost", "unpriced_charges"),
            ("leaderboard", "unpriced_charges"),
            ("cost_score", "unpriced_charges"),
            ("cost_per_correct", "unpriced_charges"),
            ("unpriced_usage", "charges"),
        )
    ]


def judged(make, *passed, run_id="run-1", status="completed", planned=None, started_at=NOVEMBER):
    """A run with a verdict for each row, and its score."""
    yield make(
        "run", org_id=ORG, run_id=run_id, status=status, model_id="m-1", model_key="llama", dataset_name="sums", started_at=started_at
    )
    right = sum(map(bool, passed))
    for number, one in enumerate(passed):
        named = {"verdict_id": f"{run_id}-{number}", "sample_id": f"{run_id}-{number}"}
        yield make("verdict", org_id=ORG, run_id=run_id, grader="exact", passed=one, outcome="ok", **named)
    yield make(
        "score",
        org_id=ORG,
        run_id=run_id,
        grader="exact",
        score=right / len(passed),
        planned=len(passed) if planned is None else planned,
        scored=len(passed),
    )


def test_each_view_counts_the_same_charges_as_unpriced(load, make, charge):
    query = load(*three(charge), *judged(make, True))
    assert unpriced_everywhere(query) == [2] * 7
    query = load(charge("k2", corrects="c2", **LATER))
    assert unpriced_everywhere(query) == [1] * 7
    query = load(charge("k3", corrects="c3", sku="tokens/output", **LATER))
    assert unpriced_everywhere(query) == [0] * 7


def test_a_charge_that_is_corrected_twice_or_had_an_amount_before_is_not_counted_away(load, make, charge):
    """Two corrections of one charge, one of a charge that had an amount, and one that knows no amount either."""
    query = load(
        *three(charge),
        *judged(make, True),
        charge("k2", corrects="c2", **LATER),
        charge("k2b", corrects="c2", **(LATER | {"amount_usd": Decimal("0.001")})),
        charge("k1", corrects="c1", **LATER),
        charge("k3", corrects="c3", sku="tokens/output", recorded_at=DECEMBER),
    )
    assert unpriced_everywhere(query) == [1] * 7
    assert query("SELECT total_usd FROM v1.bills") == [(Decimal("0.501"),)]


def test_an_ecu_line_without_an_amount_is_counted_on_its_own_bill(load, make, charge, judge_call):
    unknown = {"sku": "inference/input", "unit": "token", "quantity": None, "amount_micro_ecu": None}
    query = load(*three(charge), *judged(make, True), judge_call("e1"), judge_call("e2", **unknown))
    each = [("ecu", 1, 50_000), ("provider", 2, None)]
    assert query("SELECT plane, unpriced_charges, total_micro_ecu FROM v1.bills ORDER BY plane") == each
    for view in ("daily_cost", "monthly_cost"):
        sums = "CAST(sum(unpriced_charges) AS BIGINT), CAST(sum(amount_micro_ecu) AS BIGINT)"
        assert query(f"SELECT plane, {sums} FROM v1.{view} GROUP BY plane ORDER BY plane") == each
    assert query("SELECT unpriced_charges, micro_ecu FROM v1.leaderboard") == [(2, 50_000)]
    assert query("SELECT unpriced_charges, micro_ecu FROM v1.cost_per_correct") == [(2, 50_000)]


def test_unpriced_usage_says_what_is_missing_and_what_would_mend_it(load, charge):
    early = datetime(2026, 11, 2, 23, 59, tzinfo=UTC)
    query = load(
        *three(charge),
        charge("c4", occurred_at=early),
        charge("c5", quantity=None),
        charge("c6", occurred_at=DECEMBER, recorded_at=DECEMBER, role="judge", model_key="other"),
    )
    price = "byok price set {} --input USD --output USD --from {} && byok price apply"
    usage = "byok bill reconcile FILE (the usage that the provider exports)"
    assert query(
        "SELECT month, model_key, role, sku, reason, charges, quantity, first_at, last_at, fix FROM v1.unpriced_usage"
        " ORDER BY month, sku, reason"
    ) == [
        ("2026-11", "llama", "candidate", "tokens/input", "no_price", 2, 2000, early, NOVEMBER, price.format("llama", "2026-11-02")),
        ("2026-11", "llama", "candidate", "tokens/input", "no_usage", 1, None, NOVEMBER, NOVEMBER, usage),
        ("2026-11", "llama", "candidate", "tokens/output", "no_price", 1, 7, NOVEMBER, NOVEMBER, price.format("llama", "2026-11-10")),
        ("2026-12", "other", "judge", "tokens/input", "no_price", 1, 1000, DECEMBER, DECEMBER, price.format("other", "2026-12-05")),
    ]


PER_CORRECT = (
    "SELECT judged, correct, candidate_usd, provider_usd, micro_ecu, candidate_usd_per_correct, provider_usd_per_correct,"
    " micro_ecu_per_correct FROM v1.cost_per_correct"
)


def test_what_a_correct_answer_costs(load, make, charge, judge_call):
    query = load(
        *judged(make, True, True, True, False),
        make("verdict", org_id=ORG, run_id="run-1", verdict_id="v-x", grader="exact", passed=None, outcome="unscored"),
        charge("c1", amount_usd=Decimal("1")),
        charge("c2", role="judge", amount_usd=Decimal("1")),
        judge_call("e1"),
        judge_call("e2"),
    )
    third, thirds = Decimal("0.333333333333"), Decimal("0.666666666667")
    assert query(PER_CORRECT) == [(4, 3, Decimal(1), Decimal(2), 100_000, third, thirds, Decimal("33333.333333"))]
    thousand = "provider_usd_per_1000_rows, micro_ecu_per_1000_rows"
    assert query(f"SELECT score, planned, provider_usd, {thousand} FROM v1.cost_score") == [
        (0.75, 4, Decimal(2), Decimal(500), Decimal(25_000_000))
    ]


def test_without_a_correct_answer_there_is_no_cost_of_one(load, make, charge):
    query = load(*judged(make, False, False), charge("c1", amount_usd=USD))
    assert query(PER_CORRECT) == [(2, 0, USD, USD, None, None, None, None)]


def test_large_amounts_are_divided_to_the_last_digit(load, make, charge, judge_call):
    usd, micro = Decimal("1234567890.000000000001"), 9_007_199_254_740_993  # beyond what a DOUBLE holds
    query = load(*judged(make, True), charge("c1", amount_usd=usd), judge_call("e1", amount_micro_ecu=micro))
    assert query(PER_CORRECT) == [(1, 1, usd, usd, micro, usd, usd, Decimal(micro))]
    assert query("SELECT provider_usd_per_1000_rows, micro_ecu_per_1000_rows FROM v1.cost_score") == [(usd * 1000, Decimal(micro * 1000))]


def test_a_run_without_rows_leaves_the_views_readable(load, make, charge):
    query = load(*judged(make, True, planned=0), charge("c1", amount_usd=USD))
    assert query("SELECT planned, provider_usd_per_1000_rows, micro_ecu_per_1000_rows FROM v1.cost_score") == [(0, None, None)]


def test_only_completed_runs_are_compared_by_cost_and_score(load, make, charge):
    query = load(*judged(make, True), *judged(make, True, run_id="run-2", status="partial"), charge("c1", amount_usd=USD))
    assert query("SELECT run_id FROM v1.cost_score") == [("run-1",)]
    assert query("SELECT run_id, provider_usd, unpriced_charges FROM v1.cost_per_correct ORDER BY 1") == [
        ("run-1", USD, 0),
        ("run-2", None, 0),
    ]


@pytest.fixture
def book(make):
    """Write transactions into a ledger: give kind, entries (account, micro-ECU, grant) and what else is to be told."""
    seq = 0

    def transaction(kind, *entries, **given):
        nonlocal seq
        seq += 1
        assert sum(micro for _, micro, _ in entries) == 0
        plain = {"org_id": ORG, "hold_id": None, "run_id": None, "reverses": None, "occurred_at": NOVEMBER.replace(minute=seq)}
        for number, (account, micro, grant) in enumerate(entries, 1):
            what = {"account": account, "micro_ecu": micro, "grant_id": grant, "seq": seq, "number": number, "kind": kind}
            yield make("ledger_entry", entry_id=f"{seq}-{number}", transaction_id=f"t{seq}", **(plain | what | given))

    return transaction


@pytest.fixture
def credit(make):
    """A grant of credit."""

    def build(grant_id, micro, **given):
        return make("credit_grant", org_id=ORG, grant_id=grant_id, micro_ecu=micro, **given)

    return build


GRANTS = (
    "SELECT grant_id, micro_ecu, available_micro_ecu, held_micro_ecu, used_micro_ecu, expired_micro_ecu, overdraft_micro_ecu,"
    " reversed_micro_ecu FROM v1.grants ORDER BY grant_id"
)
BALANCE = (
    "SELECT available_micro_ecu, held_micro_ecu, used_micro_ecu, expired_micro_ecu, granted_micro_ecu, overdrawn_micro_ecu, available_ecu,"
    " seq, as_of FROM v1.balance"
)


def test_credit_that_is_granted_held_used_released_and_lost(load, book, credit):
    rows = [
        *book("grant", ("wash", -300, None), ("credit", 300, "g1")),
        *book("top_up", ("wash", -5_000_000, None), ("credit", 5_000_000, "g2")),
        *book("hold", ("credit", -300, "g1"), ("held", 300, "g1"), ("credit", -700, "g2"), ("held", 700, "g2"), run_id="run-1"),
        *book(
            "settle",
            ("held", -300, "g1"),
            ("usage", 300, "g1"),
            ("held", -500, "g2"),
            ("usage", 450, "g2"),
            ("credit", 50, "g2"),
            run_id="run-1",
        ),
    ]
    query = load(credit("g1", 300), credit("g2", 5_000_000), *rows)
    assert query(GRANTS) == [("g1", 300, 0, 0, 300, 0, 0, 0), ("g2", 5_000_000, 4_999_350, 200, 450, 0, 0, 0)]
    assert query(BALANCE) == [
        (4_999_350, 200, 750, 0, 5_000_300, 0, Decimal("4.999350"), 4, NOVEMBER.replace(minute=4)),
    ]
    rows = [
        *book("release", ("held", -200, "g2"), ("credit", 200, "g2"), run_id="run-1"),
        *book("expire", ("credit", -4_999_550, "g2"), ("breakage", 4_999_550, "g2")),
    ]
    query = load(*rows)
    assert query(GRANTS) == [("g1", 300, 0, 0, 300, 0, 0, 0), ("g2", 5_000_000, 0, 0, 450, 4_999_550, 0, 0)]
    assert query(BALANCE) == [(0, 0, 750, 4_999_550, 5_000_300, 0, Decimal(0), 6, NOVEMBER.replace(minute=6))]
    assert query("SELECT DISTINCT sum(micro_ecu) FROM v1.ledger GROUP BY transaction_id") == [(0,)]


def test_what_a_grant_was_for_is_what_became_of_it_when_it_paid_an_overdraft_or_was_taken_back(load, book, credit):
    query = load(
        credit("g1", 100),
        credit("g2", 1000),
        credit("g3", 40),
        *book("top_up", ("wash", -100, None), ("credit", 100, "g1")),
        *book("hold", ("credit", -100, "g1"), ("held", 100, "g1"), run_id="run-1"),
        *book("settle", ("held", -100, "g1"), ("usage", 100, "g1"), ("overdraft", -60, None), ("usage", 60, None), run_id="run-1"),
    )
    assert query(BALANCE)[0][:6] == (-60, 0, 160, 0, 100, 60)
    assert query(GRANTS)[1] == ("g2", 1000, None, None, None, None, None, None), "nothing is known of it yet"
    query = load(
        *book("top_up", ("wash", -1000, None), ("credit", 1000, "g2"), ("credit", -60, "g2"), ("overdraft", 60, None)),
        *book("grant", ("wash", -40, None), ("credit", 40, "g3")),
        *book("reverse", ("wash", 40, None), ("credit", -40, "g3"), reverses="t5"),
    )
    assert query(GRANTS) == [("g1", 100, 0, 0, 100, 0, 0, 0), ("g2", 1000, 940, 0, 0, 0, 60, 0), ("g3", 40, 0, 0, 0, 0, 0, 40)]
    assert query(BALANCE)[0][:6] == (940, 0, 160, 0, 1100, 0)
    assert query(
        "SELECT CAST(sum(g.used_micro_ecu) + sum(g.overdraft_micro_ecu) + any_value(b.overdrawn_micro_ecu) AS BIGINT),"
        " any_value(b.used_micro_ecu)"
        " FROM v1.grants g JOIN v1.balance b USING (org_id)"
    ) == [(160, 160)]
    # The top-up is taken back: the overdraft is open again.
    query = load(
        *book("reverse", ("wash", 1000, None), ("credit", -1000, "g2"), ("credit", 60, "g2"), ("overdraft", -60, None), reverses="t4")
    )
    assert query(GRANTS)[1] == ("g2", 1000, 0, 0, 0, 0, 0, 1000)
    assert query(BALANCE)[0][:6] == (-60, 0, 160, 0, 100, 60)


def test_what_is_available_held_used_and_lost_is_what_was_granted(load, book, credit):
    query = load(
        *book("top_up", ("wash", -900, None), ("credit", 900, "g1")),
        *book("hold", ("credit", -500, "g1"), ("held", 500, "g1")),
        *book(
            "settle",
            ("held", -500, "g1"),
            ("usage", 500, "g1"),
            ("credit", -400, "g1"),
            ("usage", 400, "g1"),
            ("overdraft", -7, None),
            ("usage", 7, None),
        ),
        credit("g1", 900),
    )
    assert query(
        "SELECT available_micro_ecu + held_micro_ecu + used_micro_ecu + expired_micro_ecu = granted_micro_ecu, available_micro_ecu,"
        " available_ecu"
        " FROM v1.balance"
    ) == [(True, -7, Decimal("-0.000007"))]
    assert query("SELECT used_micro_ecu FROM v1.grants") == [(900,)]


def test_what_is_beyond_the_overdraft_is_waived_and_an_overdraft_is_paid_from_any_grant(load, book, credit):
    """Credit that a release gives back pays what is owed, from the grant that it comes from."""
    query = load(
        *(credit(grant, 100) for grant in ("g1", "g2")),
        *book("grant", ("wash", -100, None), ("credit", 100, "g1")),
        *book("grant", ("wash", -100, None), ("credit", 100, "g2")),
        *book("hold", ("credit", -100, "g1"), ("held", 100, "g1"), run_id="run-1"),
        *book("hold", ("credit", -100, "g2"), ("held", 100, "g2"), run_id="run-2"),
        *book(
            "settle",
            *(("held", -100, "g1"), ("usage", 100, "g1"), ("overdraft", -30, None), ("waived", -20, None), ("usage", 50, None)),
            run_id="run-1",
        ),
        *book("release", ("held", -100, "g2"), ("credit", 100, "g2"), ("credit", -30, "g2"), ("overdraft", 30, None), run_id="run-2"),
    )
    assert query(GRANTS) == [("g1", 100, 0, 0, 100, 0, 0, 0), ("g2", 100, 70, 0, 0, 0, 30, 0)]
    assert query(BALANCE)[0][:6] == (70, 0, 150, 0, 200, 0)
    assert query(
        "SELECT waived_micro_ecu, available_micro_ecu + held_micro_ecu + used_micro_ecu + expired_micro_ecu"
        " = granted_micro_ecu + waived_micro_ecu FROM v1.balance"
    ) == [(20, True)]


def test_a_ledger_without_entries_has_no_balance(load):
    assert load()(BALANCE) == []
