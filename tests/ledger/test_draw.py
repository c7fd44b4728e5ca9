"""The order in which grants are drawn on, against a model that sorts nothing."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from byok.ledger import Credit
from byok.ledger.draw import draw, in_order

NOW = datetime(2026, 11, 26, tzinfo=UTC)
HOURS = st.integers(-2, 2).map(lambda hours: NOW + timedelta(hours=hours))
CREDITS = st.lists(
    st.builds(
        Credit,
        id=st.uuids(version=4).map(str),
        kind=st.sampled_from(["promotional", "paid"]),
        priority=st.integers(1, 3),
        left=st.integers(0, 5),
        effective_at=HOURS,
        expires_at=st.none() | HOURS,
    ),
    max_size=8,
    unique_by=lambda credit: credit.id,
)


def before(one: Credit, other: Credit) -> bool:
    """Whether one is drawn on before another, rule by rule."""
    if one.kind != other.kind:
        return one.kind == "promotional"
    if one.expires_at != other.expires_at:
        return other.expires_at is None or (one.expires_at is not None and one.expires_at < other.expires_at)
    if one.priority != other.priority:
        return one.priority < other.priority
    return one.id < other.id


def drawn_singly(credits, micro):
    """One micro-ECU at a time, of whichever grant no other precedes."""
    left = {one.id: one.left for one in credits}
    taken = {}
    while micro:
        able = [one for one in credits if left[one.id] and one.effective_at <= NOW and (one.expires_at is None or one.expires_at > NOW)]
        if not able:
            break
        (first,) = [one for one in able if all(one is other or before(one, other) for other in able)]
        left[first.id] -= 1
        taken[first.id] = taken.get(first.id, 0) + 1
        micro -= 1
    return list(taken.items()), micro


@given(CREDITS, st.integers(0, 30))
def test_an_amount_is_drawn_as_if_each_micro_ecu_looked_for_its_grant(credits, micro):
    assert draw(credits, micro, NOW) == drawn_singly(credits, micro)


@given(CREDITS, st.integers(0, 30), st.randoms(use_true_random=False))
def test_the_order_in_which_grants_are_read_does_not_matter(credits, micro, random):
    shuffled = random.sample(credits, len(credits))
    assert draw(shuffled, micro, NOW) == draw(credits, micro, NOW)
    assert in_order(shuffled, NOW) == in_order(credits, NOW)


@given(CREDITS, st.integers(0, 30))
def test_what_is_drawn_and_what_is_lacking_add_up_to_what_was_asked(credits, micro):
    parts, lacking = draw(credits, micro, NOW)
    assert sum(part for _, part in parts) + lacking == micro and lacking >= 0
    assert all(0 < part <= next(one.left for one in credits if one.id == grant) for grant, part in parts)
    drawable = sum(one.left for one in credits if one.drawable(NOW))
    assert lacking == max(0, micro - drawable)


@given(CREDITS, st.integers(0, 15), st.integers(0, 15))
def test_two_draws_take_what_one_of_both_amounts_would(credits, first, second):
    parts, _ = draw(credits, first, NOW)
    rest = {one.id: one.left for one in credits}
    for grant, part in parts:
        rest[grant] -= part
    after = [Credit(**(vars(one) | {"left": rest[one.id]})) for one in credits]
    summed: dict[str, int] = {}
    for grant, part in (*parts, *draw(after, second, NOW)[0]):
        summed[grant] = summed.get(grant, 0) + part
    assert list(summed.items()) == draw(credits, first + second, NOW)[0]
