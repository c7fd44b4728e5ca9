"""Whether a model reasons, and whether it can be told to do less of it (providers.md, section 12, P7)."""

from __future__ import annotations

from byok.endpoint.answers import ChatAnswer
from byok.endpoint.asking import ChatOptions
from byok.endpoint.probing.findings import Probing, of, refuses
from byok.endpoint.probing.opening import HELLO, SYSTEM, TOKENS, Opening, read_logprobs, read_system
from byok.endpoint.probing.session import Seen


async def reasoning(probing: Probing, opening: Opening) -> None:
    """Whether the model reasons where that can be seen; if so, whether `reasoning_effort` changes how much.

    Where it does, the later requests ask for that too: reasoning would use up their few tokens. What the first answer could not show
    without a text, this one may.
    """
    before = opening.answer
    if before is None:
        probing.skip("reasoning", "not asked: only a plain request was answered")
        return
    first = Seen(probing.session.log.attempts[opening.attempt], before, None)
    if not opening.reasons:
        probing.keep(of(first, "reasoning", "unsupported", "no reasoning came, and no tokens of it were counted"))
        return
    shown = "its reasoning is shown" if before.reasoning else "tokens of reasoning are counted, and none is shown"
    probing.keep(of(first, "reasoning", "supported", shown))
    if "reasoning_effort" in probing.owners:
        return
    system, logprobs = (probing.found[name].outcome for name in ("system_role", "logprobs"))
    options: ChatOptions = {"logprobs": 1} if logprobs == "unknown" else {}
    for effort in ("none", "low"):
        options["more"] = {"reasoning_effort": effort}
        seen = await probing.session.chat([SYSTEM, HELLO] if system != "unsupported" else [HELLO], TOKENS, **options)
        if not refuses(seen.error):
            break
    told, works = _control(seen, effort, before)
    refused = "reasoning_effort" if refuses(seen.error) else None
    probing.keep(of(first, "reasoning", "supported", f"{shown}; {told}", parameter=refused))
    if works:
        probing.more = {"reasoning_effort": effort}
    if seen.answer is not None and system == "unknown":
        probing.keep(read_system(seen, seen.answer))
    if seen.answer is not None and logprobs == "unknown":
        probing.keep(read_logprobs(seen, seen.answer))


def _control(seen: Seen[ChatAnswer], effort: str, before: ChatAnswer) -> tuple[str, bool]:
    if seen.answer is None:
        return ("reasoning_effort is refused" if refuses(seen.error) else "with reasoning_effort no answer came"), False
    less = _lessened(before, seen.answer)
    if less is None:
        return f"reasoning_effort {effort} is accepted, and what it changes cannot be told", False
    if less:
        return f"reasoning_effort {effort} lessens it", True
    return f"reasoning_effort {effort} is accepted and changes nothing", False


def _lessened(before: ChatAnswer, after: ChatAnswer) -> bool | None:
    """Whether there is less reasoning than before, by what both answers have: tokens, else characters; None when they share neither."""
    first, second = before.usage.reasoning_tokens, after.usage.reasoning_tokens
    if first is not None and second is not None:
        return second < first
    if second == 0 and not after.reasoning:
        return True
    if before.reasoning and (after.reasoning or second is None):
        return len(after.reasoning or "") < len(before.reasoning)
    return None
