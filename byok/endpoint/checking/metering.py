"""Facts 32 to 41: rate limits and usage."""

from __future__ import annotations

from byok.clock import utcnow
from byok.endpoint.checking.look import Look
from byok.endpoint.checking.verdict import Case, Verdict, bad, good, numbers, unanswered, unseen
from byok.endpoint.errors import BadRequest
from byok.endpoint.limits import Limits, read_limits
from byok.endpoint.usage import read_usage

_MEMBERS = frozenset({"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"})
_PLACES = {
    "empty_choices": "on a last chunk without choices, as in the reference",
    "finish": "on the chunk with the finish reason, where the reference has a chunk of its own; read all the same",
    "every": "on every chunk, where the reference has it on the last; the last counts",
    "other": "on some other chunk, where the reference has a chunk of its own; read all the same",
}


def _limits(case: Case) -> tuple[Look, Limits] | None:
    """The first reply that speaks of limits."""
    for look in case.seen.looks:
        found = read_limits(look.headers, utcnow(), case.target.profile.limit_windows, redact=case.redact)
        if found.limits or found.dynamic is not None:
            return look, found
    return None


def resets(case: Case) -> Verdict:
    """32: when a limit is whole again."""
    found = _limits(case)
    told = [(limit, dict(limit.raw)) for limit in found[1].limits] if found else []
    given = [(limit, name, text) for limit, raw in told for name, text in raw.items() if "-reset" in name]
    if not found or not given:
        return unseen("no reply tells when a limit is whole again")
    wrong = [(name, text) for limit, name, text in given if limit.reset_s is None]
    if wrong:
        return bad(f"cannot be read: {wrong[0][0]}: {wrong[0][1]}", "send seconds, or durations such as 1s and 6m0s", found[0])
    limit, name, text = given[0]
    return good(f"{name}: {text}, read as {limit.reset_s:g} s", found[0])


def windows(case: Case) -> Verdict:
    """33: what a limit counts."""
    found = _limits(case)
    if not found or not found[1].limits:
        return unseen("no reply has rate-limit headers")
    wrong = [limit for limit in found[1].limits if limit.limit is None and limit.remaining is None and limit.reset_s is None]
    if wrong:
        name, text = wrong[0].raw[0]
        return bad(f"cannot be read: {name}: {text}", "send plain numbers", found[0])
    shown = [
        f"{one.kind} {one.limit:g}{f' per {one.window_s:g} s' if one.window_s else ''}" for one in found[1].limits if one.limit is not None
    ]
    return good(f"{', '.join(shown[:4]) or 'what is left, without the limit'}", found[0])


def over_limit(case: Case) -> Verdict:
    """34: low priority."""
    for look in case.seen.looks:
        if read_limits(look.headers, utcnow()).over_limit:
            return good("x-ratelimit-over-limit: served beyond the limit; its latency is no measure", look)
    return unseen("no reply says that it was served beyond the limit")


def rate_headers(case: Case) -> Verdict:
    """35: rate headers at all."""
    found = _limits(case)
    if found is not None:
        return good(f"there are some ({numbers([found[0]])})", found[0])
    replies = [look for look in case.seen.looks if look.reply is not None]
    if not replies:
        return unseen("there was no reply")
    return good(f"none in {len(replies)} replies, where the reference has some; the client finds the rate by backing off")


def usage(case: Case) -> Verdict:
    """36: usage of what comes whole."""
    found = [look for look in case.seen.looks if look.usage is not None and look.frames is None]
    if not found:
        return unseen("nothing was answered whole")
    missing = [look for look in found if look.usage is not None and look.usage.usage_class == "missing"]
    if missing:
        hint = "send usage with prompt_tokens, completion_tokens and total_tokens"
        return bad(f"{missing[0].what}: no usage, so its cost is unknown ({numbers(missing)})", hint, *missing)
    look = found[0]
    assert look.usage is not None
    return good(f"{look.what}: {look.usage.prompt_tokens} + {look.usage.completion_tokens} tokens; all {len(found)} tell it", look)


def stream_usage(case: Case) -> Verdict:
    """37: usage of a stream."""
    look = case.seen.last("stream")
    if look is None or look.answer is None:
        return unanswered(case, "stream")
    timing = look.answer.timing
    if timing is None:
        return unseen("no stream came: the answer came whole", look)
    if timing.usage_place == "missing":
        return bad(
            "a stream tells no usage, so its cost is unknown", "end a stream with usage when stream_options.include_usage asks", look
        )
    unasked = "" if "stream_options" in look.sent else ", unasked"
    return good(f"{_PLACES[timing.usage_place]}{unasked}", look)


def stream_options(case: Case) -> Verdict:
    """38: the question for usage."""
    looks = [look for look in case.seen.all("stream") if "stream_options" in look.sent]
    refused = [
        look for look in looks if isinstance(look.error, BadRequest) and "stream_options" in f"{look.error.parameter} {look.error.message}"
    ]
    last = case.seen.last("stream")
    if not looks:
        return unanswered(case, "stream") if last is None else unseen("not sent: by its profile, usage comes unasked", last)
    if refused:
        told = (
            last is not None and last.answer is not None and last.answer.timing is not None and last.answer.timing.usage_place != "missing"
        )
        if told:
            return good("refused, where the reference takes it; usage comes all the same", *refused)
        return bad(f"refused: {case.outcome(refused[0])}", "take stream_options.include_usage", *refused)
    return good("taken", looks[-1]) if looks[-1].answer is not None else unanswered(case, "stream")


def cached(case: Case) -> Verdict:
    """39: where cached tokens stand."""
    for look in case.seen.looks:
        for told in look.usages:
            details = told.get("prompt_tokens_details")
            if isinstance(details, dict) and details.get("cached_tokens") is not None:
                return good("prompt_tokens_details.cached_tokens, as in the reference", look)
            if told.get("cached_tokens") is not None:
                return good("usage.cached_tokens, where the reference has it in prompt_tokens_details; read all the same", look)
        if look.headers.get("fireworks-cached-prompt-tokens"):
            return good("in a header, where the reference has it in prompt_tokens_details; read all the same", look)
    return unseen("no usage speaks of cached tokens")


def sums(case: Case) -> Verdict:
    """40: parts that add up."""
    found = [
        (look, told, read_usage(told, look.headers)) for look in case.seen.looks if look.answer is not None for told in look.usages[-1:]
    ]
    if not found:
        return unseen("no answer tells usage")
    wrong = [(look, told) for look, told, read in found if read.usage_class == "invalid"]
    if wrong:
        look, told = wrong[0]
        said = {name: told[name] for name in sorted(_MEMBERS) if told.get(name) is not None}
        return bad(
            f"does not add up: {case.quote(said, 160)}", "let total_tokens be prompt_tokens + completion_tokens", *(one for one, _ in wrong)
        )
    for look, told, read in found:
        if isinstance(told.get("completion_tokens"), int) and read.completion_tokens != told["completion_tokens"]:
            return good("reasoning is counted on top of completion_tokens, where the reference has it inside; the total tells", look)
    null = any(told.get(name) is None for _, told, _ in found for name in ("prompt_tokens_details", "completion_tokens_details"))
    return good(f"all {len(found)} add up{'; details are null or missing, which costs nothing' if null else ''}")


def foreign(case: Case) -> Verdict:
    """41: timings and the like inside usage."""
    told = [(look, usage) for look in case.seen.looks for usage in look.usages]
    if not told:
        return unseen("no answer tells usage")
    names = sorted({name for _, usage in told for name in usage if name not in _MEMBERS})
    if not names:
        return good("only the reference's members")
    return good(f"also {case.quote(', '.join(names[:8]), 160)}: passed over, and never summed", told[0][0])


FACTS = {
    **{32: resets, 33: windows, 34: over_limit, 35: rate_headers, 36: usage},
    **{37: stream_usage, 38: stream_options, 39: cached, 40: sums, 41: foreign},
}
