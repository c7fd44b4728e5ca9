"""The key file, and what a right and a wrong answer look like."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import orjson

from byok.errors import InputError

_QUESTION_FIELDS = ("question", "input", "prompt")
_ANSWER_FIELDS = ("answer", "expected", "output", "target")
_NUMBER = re.compile(r"(?P<before>[^\d\-+.,]*)(?P<sign>-?)(?P<whole>\d[\d,]*)(?P<fraction>\.\d+)?(?P<after>\D*)\Z")
_OPPOSITES = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_WORDS = ("unrelated", "kiwi", "zebra", "1")
_FRAMES = ("The answer is {}", "It should be {}", "{}")


class AnswersUnusable(InputError):
    """The key file cannot be used."""

    code = "answers_unusable"


def read_answers(path: Path, pattern: str | None = None) -> list[tuple[str, str]]:
    r"""Questions and expected answers of a JSONL file.

    A line holds `question`, `input` or `prompt`, and `answer`, `expected`, `output` or `target`. Of an answer in the style of
    GSM8K only what follows the last `#### ` counts. The same line twice is one question.

    Args:
        path: The file; lines end with `\n` only.
        pattern: Regular expression that finds the expected answer in the field: its first group, or the whole match.

    Raises:
        AnswersUnusable: Not readable, not JSONL, a field is missing, the pattern does not match, one question has two answers,
            or there are no lines.
    """
    hint = 'one JSON object a line, like {"question": "2+2?", "answer": "4"}'
    try:
        lines = path.read_bytes().split(b"\n")
        finder = re.compile(pattern) if pattern is not None else None
    except OSError as error:
        raise AnswersUnusable(f"{path}: {error.strerror or 'cannot be read'}", hint="check --answers") from None
    except re.error:
        raise AnswersUnusable(f"{pattern!r} is not a regular expression", hint="check --answer-pattern") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        question, answer = _read_line(line, f"{path}, line {number}", hint)
        answer = _final(answer, finder, f"{path}, line {number}")
        if found.setdefault(question, answer) != answer:
            raise AnswersUnusable(f"{path}, line {number}: the question has another answer above", hint="questions must be unique")
    if not found:
        raise AnswersUnusable(f"{path}: there are no lines", hint=hint)
    return list(found.items())


def _read_line(line: bytes, where: str, hint: str) -> tuple[str, str]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise AnswersUnusable(f"{where}: not JSON", hint=hint) from None
    texts = []
    for names in (_QUESTION_FIELDS, _ANSWER_FIELDS):
        given = next((value[name] for name in names if name in value), None) if isinstance(value, dict) else None
        if isinstance(given, int | float) and not isinstance(given, bool):
            given = str(given)
        if not isinstance(given, str) or not given.strip():
            raise AnswersUnusable(f"{where}: none of {', '.join(names)} holds a text", hint=hint)
        texts.append(given.strip())
    return texts[0], texts[1]


def _final(answer: str, finder: re.Pattern[str] | None, where: str) -> str:
    if finder is None:
        return answer.rpartition("#### ")[2].strip() or answer
    found = finder.search(answer)
    text = (found[1] if finder.groups else found[0]) if found else None
    if not text or not text.strip():
        raise AnswersUnusable(f"{where}: the pattern finds no answer", hint="check --answer-pattern")
    return text.strip()


def share(questions: Iterable[str], fraction: float, salt: str) -> frozenset[str]:
    """Exactly `round(fraction * n)` of the questions: those that come first by the SHA-256 of salt and question.

    So the set does not depend on the order of the file or of the requests.
    """
    ranked = sorted(questions, key=lambda question: hashlib.sha256(f"{salt}\0{question}".encode()).digest())
    return frozenset(ranked[: round(fraction * len(ranked))])


def right_text(expected: str) -> str:
    """A short sentence that ends with the expected answer."""
    return _FRAMES[0].format(expected)


def wrong_text(expected: str) -> str:
    """A short sentence with a plausible other answer; the expected one does not occur in it, in any case of letters.

    A number is answered with another number in the same form, yes with no, a letter with another letter, and anything else
    with a fixed word.
    """
    avoided = expected.casefold()
    for frame in _FRAMES:
        for word in _others(expected):
            text = frame.format(word)
            if avoided not in text.casefold():
                return text
    return "?"


def _others(expected: str) -> list[str]:
    if expected.lower() in _OPPOSITES:
        other = _OPPOSITES[expected.lower()]
        return [other.capitalize() if expected[0].isupper() else other, *_WORDS]
    if len(expected) == 1 and expected.isalpha() and expected.isascii():
        base = "A" if expected.isupper() else "a"
        return [chr(ord(base) + (ord(expected) - ord(base) + step) % 4) for step in (1, 2, 3)]
    number = _NUMBER.match(expected)
    if number is None:
        return list(_WORDS)
    parts = number.groupdict(default="")
    whole = int(parts["whole"].replace(",", ""))
    form = "{:,}" if "," in parts["whole"] else "{}"
    return [
        f"{parts['before']}{parts['sign']}{form.format(whole + step)}{parts['fraction']}{parts['after']}" for step in (1, 2, 3, 5, 7)
    ] + ["2" if "2" not in expected else "7"]
