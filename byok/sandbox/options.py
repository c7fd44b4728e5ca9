"""Options of the sandbox: read and checked before anything is served."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from byok.errors import InputError
from byok.sandbox.answers import AnswersUnusable, read_answers
from byok.sandbox.capabilities import NAMES, NEVER_IGNORED, Capabilities
from byok.sandbox.dialects import PROFILES, OpenAI

REASONING_PLACES = ("reasoning", "reasoning_content", "both", "think")


class BadSandboxOption(InputError):
    """An option of the sandbox is out of its range."""

    code = "bad_sandbox_option"


def features_of(profile: str, *, besides: Collection[str] = (), without: Collection[str] = ()) -> frozenset[str]:
    """What a sandbox of a profile can do: what the provider's models usually can, with some features more and some less.

    Raises:
        BadSandboxOption: There is no such profile, or no such feature.
    """
    _check_names([*besides, *without], NAMES)
    return (dialect_of(profile).supports | frozenset(besides)) - frozenset(without)


def dialect_of(profile: str) -> OpenAI:
    """The dialect of a profile.

    Raises:
        BadSandboxOption: There is no such profile.
    """
    found = PROFILES.get(profile)
    if found is None:
        raise BadSandboxOption(f"{profile!r} is no profile of the sandbox", hint=f"one of {', '.join(PROFILES)}")
    return found()


def capabilities(supports: frozenset[str], ignores: frozenset[str], *, json_schema: bool) -> Capabilities:
    """What happens to each feature; see `Sandbox`.

    Raises:
        BadSandboxOption: A name is unknown.
    """
    _check_names(supports, NAMES)
    _check_names(ignores, [name for name in NAMES if name not in NEVER_IGNORED])
    return Capabilities(frozenset(supports) - (frozenset() if json_schema else {"json_schema"}), frozenset(ignores))


def _check_names(given: Collection[str], allowed: Collection[str]) -> None:
    unknown = sorted(name for name in given if name not in allowed)
    if unknown:
        raise BadSandboxOption(f"{unknown[0]!r} is nothing that can be chosen here", hint=f"one of {', '.join(allowed)}")


def pairs(answers: Sequence[tuple[str, str]] | Path | str) -> list[tuple[str, str]]:
    """Questions with their answers, of a file or as given, each question once.

    Raises:
        AnswersUnusable: There are none, one is empty, or one has two answers.
    """
    if isinstance(answers, str | Path):
        return read_answers(Path(answers))
    found: dict[str, str] = {}
    for question, answer in answers:
        if not question.strip() or not answer.strip():
            raise AnswersUnusable("a question or an answer is empty", hint="give both for each")
        if found.setdefault(question.strip(), answer.strip()) != answer.strip():
            raise AnswersUnusable("a question has two answers", hint="questions must be unique")
    if not found:
        raise AnswersUnusable("there are no questions", hint="give at least one")
    return list(found.items())
