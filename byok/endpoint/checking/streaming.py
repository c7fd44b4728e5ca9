"""Facts 49 to 52: how a stream ends, fails and arrives."""

from __future__ import annotations

from byok.endpoint.checking.look import Look
from byok.endpoint.checking.verdict import Case, Verdict, bad, good, numbers, unanswered, unseen
from byok.endpoint.errors import ResponseTruncated


def _whole_streams(case: Case) -> list[Look]:
    """The streams that were read to their end."""
    looks = case.seen.all("stream", "required")
    return [look for look in looks if look.answer is not None and look.frames is not None]


def end(case: Case) -> Verdict:
    """49: the last event, and the lines between."""
    found = _whole_streams(case)
    if not found:
        last = case.seen.last("stream")
        return unanswered(case, "stream") if last is None or last.answer is None else unseen("no stream came: the answer came whole", last)
    without = [look for look in found if look.frames is not None and not look.frames.done]
    if without:
        seen = f"no [DONE]: that nothing is missing behind the last chunk, such as usage, cannot be told ({numbers(without)})"
        return bad(seen, "end every stream with data: [DONE]", *without)
    frames = [look.frames for look in found if look.frames is not None]
    odd = ["lines end with CRLF"] if any(one.crlf for one in frames) else []
    odd += ["comment lines between the events"] if any(one.comments for one in frames) else []
    odd += ["the last event lacks its blank line"] if any(not one.closed for one in frames) else []
    told = f"[DONE], as in the reference{'; ' if odd else ''}{', '.join(odd)}{', read without loss' if odd else ''}"
    return good(told, *found[:1])


def errors(case: Case) -> Verdict:
    """50: an error after the 200."""
    found = [look for look in case.seen.looks if look.good and look.frames is not None and _has_error(look)]
    if not found:
        return unseen("no error came inside a stream")
    early = [look for look in found if not any(_wrote(choice) for choice in look.choices)]
    if early:
        hint = "refuse with a status of 4xx or 5xx as long as nothing was streamed"
        return bad(f"HTTP 200, and then nothing but an error: {case.outcome(early[0])} ({numbers(early)})", hint, *early)
    return good(f"an error after the first pieces, taken for a failure: {case.outcome(found[0])}", *found)


def _has_error(look: Look) -> bool:
    return look.frames is not None and any(chunk.get("error") or chunk.get("object") == "error" for chunk in look.frames.chunks)


def _wrote(choice: dict[str, object]) -> bool:
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(
        delta.get(name) for name in ("content", "reasoning", "reasoning_content", "tool_calls", "refusal")
    )


def complete(case: Case) -> Verdict:
    """51: answers that come to their end."""
    cut = [look for look in case.seen.looks if isinstance(look.error, ResponseTruncated)]
    if cut:
        hint = "send the finish reason, and close the connection after it; a proxy before the server may cut it"
        return bad(f"cut off: {case.outcome(cut[0])} ({numbers(cut)})", hint, *cut)
    found = [look for look in case.seen.answered if look.ask != "huge"]
    return good(f"all {len(found)} answers came to their end") if found else unseen("nothing was answered")


def arrival(case: Case) -> Verdict:
    """52: pieces that come as they are made."""
    look = case.seen.last("stream")
    if look is None or look.answer is None:
        return unanswered(case, "stream")
    timing = look.answer.timing
    if timing is None:
        return unseen("no stream came: the answer came whole", look)
    if look.held_back:
        seen = f"all pieces came at once, at the end of {look.ms:.0f} ms: the time to the first token means nothing"
        return bad(seen, "switch off buffering (in nginx proxy_buffering off, or the header X-Accel-Buffering: no) and gzip", look)
    if look.held_back is None:
        return unseen("too few pieces, or too quick, to tell", look)
    return good(f"in pieces, the first after {timing.first_ms or 0:.0f} of {look.ms:.0f} ms", look)


FACTS = {49: end, 50: errors, 51: complete, 52: arrival}
