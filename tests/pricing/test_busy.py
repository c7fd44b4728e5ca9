"""Shares of the time for which a model was busy: equal at each moment, whole microseconds, and together exactly that time."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from byok.pricing.busy import UNKNOWN, busy_shares

CALLS = st.lists(st.tuples(st.integers(0, 60), st.integers(-3, 40), st.booleans()), max_size=30)


def parts(calls):
    opened = [begin for begin, _, _ in calls]
    return opened, [UNKNOWN if lost else begin + length for begin, length, lost in calls]


def union(opened, closed):
    """Microseconds in which any call was under way, counted one by one."""
    return {moment for begin, end in zip(opened, closed, strict=True) if end != UNKNOWN for moment in range(begin, end)}


@settings(max_examples=300)
@given(CALLS)
def test_the_shares_come_to_the_busy_time_and_each_is_its_own_to_the_microsecond(calls):
    opened, closed = parts(calls)
    shares = busy_shares(opened, closed)
    assert [share == UNKNOWN for share in shares] == [end == UNKNOWN for end in closed]
    busy = union(opened, closed)
    assert sum(share for share in shares if share != UNKNOWN) == len(busy)
    under_way = {moment: sum(begin <= moment < end for begin, end in zip(opened, closed, strict=True) if end != UNKNOWN) for moment in busy}
    for begin, end, share in zip(opened, closed, shares, strict=True):
        if end != UNKNOWN:
            exact = sum(Fraction(1, under_way[moment]) for moment in range(begin, end))
            assert share >= 0 and abs(share - exact) <= 1


@given(CALLS, CALLS)
def test_calls_that_began_when_all_others_had_ended_change_none_of_their_shares(before, after):
    opened, closed = parts(before)
    later = [(begin + 1000, length, lost) for begin, length, lost in after]
    both = busy_shares(*(first + second for first, second in zip((opened, closed), parts(later), strict=True)))
    assert both[: len(before)] == busy_shares(opened, closed)


def test_two_calls_share_what_they_have_in_common():
    assert list(busy_shares([0, 4], [10, 10])) == [7, 3]
    assert list(busy_shares([0, 0, 0], [10, 10, 10])) == [3, 3, 4]
    assert list(busy_shares([0, 5], [10, 5])) == [10, 0]
    assert list(busy_shares([], [])) == []
    assert list(busy_shares([7], [UNKNOWN])) == [UNKNOWN]
