"""Code graders: the same answer always gets the same verdict."""

from __future__ import annotations

import unicodedata
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

import regex

from byok.grading.verdict import Verdict, decided, unscored

REGEX_TIMEOUT_S = 0.5
"""A pattern that takes longer on an answer leaves it unscored: `(a|aa)+` can take for ever."""

MOST_DIGITS = 4000
"""A longer run of digits is no number: exact arithmetic on a million of them takes a minute."""

_ARTICLES = regex.compile(r"\b(?:a|an|the)\b")
# Thousands signs only where they separate thousands; a sign only where nothing stands before that it could subtract from.
_NUMBER = regex.compile(
    r"(?P<sign>(?<![\w)\]])[-+\u2212]\s?)?(?:\p{Sc}\s?)?(?P<inner>(?<=\p{Sc}\s?)[-+\u2212])?"
    r"(?P<digits>\d{1,3}(?:[,\u00a0\u202f'’]\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?P<exponent>[eE][-+]?\d{1,3}(?!\w))?"
)
# A small a or i before a word is an article or a person, not a letter that was chosen.
_SAID = regex.compile(r"(?i:answer|choice|option)(?i:\s+is)?\s*[:=]?\s*[*_(\[\"']*([A-Jb-hj]|[ai](?![ \t]+\w))(?![\w'’])")
_ALONE = regex.compile(r"^[\s*_(\[\"']*([A-J])[\s*_)\]\"'.:]*$", regex.MULTILINE)
_LED = regex.compile(r"(?:^|[\s(\[*])[(\[]?([A-J])[)\].:](?=\s|$|\*)")


def normalise(text: str, *, punctuation: bool = True, articles: bool = True) -> str:
    """NFKC, case-folded, outer and repeated space removed; without punctuation and articles when these are switched off.

    With both off it is the normalisation of SQuAD 1.1 (Rajpurkar et al., 2016).
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    if not punctuation:
        text = "".join(char for char in text if not unicodedata.category(char).startswith("P"))
    if not articles:
        text = _ARTICLES.sub(" ", text)
    return " ".join(text.split())


def exact(output: str, expected: str, options: dict[str, Any]) -> Verdict:
    """The answer is the expected text; `strict=true` compares without any normalisation."""
    if options["strict"]:
        return decided(output == expected)
    rules = {"punctuation": options["punctuation"], "articles": options["articles"]}
    return decided(normalise(output, **rules) == normalise(expected, **rules))


def includes(output: str, expected: str, options: dict[str, Any]) -> Verdict:
    """The expected text occurs in the answer; `case=true` minds the case."""
    if not expected.strip():
        return unscored("the expected answer is empty")
    if options["case"]:
        return decided(unicodedata.normalize("NFKC", expected).strip() in unicodedata.normalize("NFKC", output))
    return decided(normalise(expected) in normalise(output))


def compiled(pattern: str) -> str:
    """The pattern, if it is a regular expression.

    Raises:
        ValueError: It is none.
    """
    try:
        regex.compile(pattern)
    except regex.error as problem:
        raise ValueError(f"a regular expression ({problem})") from None
    return pattern


def matches(output: str, expected: str, options: dict[str, Any]) -> Verdict:
    """The pattern occurs in the answer; the expected answer plays no part."""
    try:
        found = regex.search(options["pattern"], output, flags=0 if options["case"] else regex.IGNORECASE, timeout=REGEX_TIMEOUT_S)
    except TimeoutError:
        return unscored("the pattern takes too long on this answer")
    return decided(found is not None)


def last_number(text: str) -> Decimal | None:
    """The last number in a text: thousands signs, currency signs, percent signs and exponents are understood."""
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    last = found[-1]
    digits = regex.sub(r"[,\u00a0\u202f'’]", "", last["digits"]) + (last["exponent"] or "")
    if len(digits) > MOST_DIGITS:
        return None
    try:
        value = Decimal(digits)
    except InvalidOperation:
        return None
    signs = (last["sign"] or "").strip() + (last["inner"] or "")
    # (A minus sign in Python would round to the precision of the context.)
    return value.copy_negate() if "-" in signs or "\u2212" in signs else value


def numeric(output: str, expected: str, options: dict[str, Any]) -> Verdict:
    """The last number of the answer is the last number of the expected one, within `tolerance` or `rel` (share of the expected)."""
    wanted = last_number(expected)
    if wanted is None:
        return unscored("the expected answer has no number")
    found = last_number(output)
    if found is None:
        return decided(False)
    # As fractions, since a Decimal difference is rounded to 28 digits.
    room = max(Fraction(options["tolerance"]), Fraction(options["rel"]) * abs(Fraction(wanted)))
    return decided(abs(Fraction(found) - Fraction(wanted)) <= room)


def settled_letter(text: str) -> str | None:
    """The letter A to J that an answer settles on: the last one that it names as its answer; else the only one that stands out.

    None when it names none, or several without saying which.
    """
    said = _SAID.findall(text)
    if said:
        return str(said[-1]).upper()
    for pattern in (_ALONE, _LED):
        letters = {str(letter) for letter in pattern.findall(text)}
        if letters:
            return letters.pop() if len(letters) == 1 else None
    return None


def choice(output: str, expected: str, options: dict[str, Any]) -> Verdict:
    """The letter that the answer settles on is the expected one; without such a letter it is unscored."""
    wanted = settled_letter(expected)
    if wanted is None:
        return unscored("the expected answer has no letter")
    found = settled_letter(output)
    if found is None:
        return unscored("the answer does not settle on one letter")
    return decided(found == wanted)
