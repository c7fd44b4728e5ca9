"""Grader specifications: `name` or `name:option=value,option=value`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from byok.errors import InputError
from byok.grading import code
from byok.grading.similarity import THRESHOLD, EmbeddingOptions, cosine_bound, model_key, vector_length
from byok.grading.verdict import Verdict, unscored
from byok.money import plain


class GraderUnknown(InputError):
    """No code grader of that name."""

    code = "grader_unknown"


class GraderOption(InputError):
    """An option that the grader does not have, or a value that it does not take."""

    code = "grader_option"


Check = Callable[[str, str, dict[str, Any]], Verdict]


@dataclass(frozen=True)
class Grader:
    """A code grader with its options.

    Attributes:
        spec: Canonical text: options in order of their names, defaults left out.
        embeds: What it asks an endpoint for; None when it grades by itself.
    """

    spec: str
    _check: Check
    _options: dict[str, Any]
    _needs_expected: bool = True
    embeds: EmbeddingOptions | None = None

    metric = "pass_rate"

    def grade(self, output: str, expected: str | None) -> Verdict:
        """Grade one answer.

        Args:
            output: The answer.
            expected: The right answer; without one the answer is unscored.

        Raises:
            ValueError: It asks an endpoint, so that only a run can grade with it.
        """
        if expected is None and self._needs_expected:
            return unscored("the row has no expected answer")
        return self._check(output, expected or "", self._options)


def _canonical(value: Any) -> str:
    """One spelling for each value: 0.10 and 0.1 are the same option."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return plain(value) if isinstance(value, Decimal) else str(value)


def _flag(text: str) -> bool:
    if text.lower() in ("true", "yes", "1"):
        return True
    if text.lower() in ("false", "no", "0"):
        return False
    raise ValueError("true or false")


def _amount(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError("a number") from None
    if not value.is_finite() or value < 0:
        raise ValueError("a number from 0 up")
    return value


def _by_endpoint(output: str, expected: str, options: dict[str, Any]) -> Verdict:
    raise ValueError("this grader asks an endpoint: a run scores with it in a stage of its own")


# Options: how a value is read, and its default.
_GRADERS: dict[str, tuple[Check, dict[str, tuple[Callable[[str], Any], Any]], bool]] = {
    "exact": (code.exact, {"strict": (_flag, False), "punctuation": (_flag, True), "articles": (_flag, True)}, True),
    "includes": (code.includes, {"case": (_flag, False)}, True),
    "regex": (code.matches, {"pattern": (code.compiled, None), "case": (_flag, True)}, False),
    "numeric": (code.numeric, {"tolerance": (_amount, Decimal(0)), "rel": (_amount, Decimal(0))}, True),
    "choice": (code.choice, {}, True),
    "embedding_similarity": (
        _by_endpoint,
        {"model": (model_key, None), "threshold": (cosine_bound, THRESHOLD), "dimensions": (vector_length, None)},
        False,
    ),
}
# An option that must be given, and an example of the grader with it.
_REQUIRED = {"regex": ("pattern", "'regex:pattern=^yes'"), "embedding_similarity": ("model", "embedding_similarity:model=KEY")}


def parse_grader(spec: str) -> Grader:
    """The grader of a specification. A `pattern` takes all the rest, commas included, so it comes last.

    Raises:
        GraderUnknown: No grader of that name.
        GraderOption: An option or a value that it does not take.
    """
    name, _, rest = spec.strip().partition(":")
    if name not in _GRADERS:
        raise GraderUnknown(f"no grader {name!r}", hint="the graders are: " + ", ".join(_GRADERS), grader=name)
    check, known, needs_expected = _GRADERS[name]
    required, example = _REQUIRED.get(name, (None, name))
    options = {option: default for option, (_, default) in known.items()}
    written: dict[str, str] = {}
    for option, value in _pairs(name, rest):
        if option not in known:
            listed = ", ".join(known) or "none"
            raise GraderOption(f"the grader {name} has no option {option!r}", hint=f"its options are: {listed}", grader=name)
        try:
            options[option] = known[option][0](value)
        except ValueError as problem:
            raise GraderOption(
                f"{name}: {option}={value!r} is not {problem}", hint=f"for example --grader {example}", grader=name
            ) from None
        written.pop(option, None)  # the last one counts
        if options[option] != known[option][1]:
            written[option] = _canonical(options[option])
    if required is not None and options[required] is None:
        raise GraderOption(f"the grader {name} needs a {required}", hint=f"for example --grader {example}", grader=name)
    # The pattern may hold commas, so it stands last in the canonical text too.
    ordered = sorted(written.items(), key=lambda pair: (pair[0] == "pattern", pair[0]))
    canonical = name + (":" + ",".join(f"{option}={value}" for option, value in ordered) if ordered else "")
    embeds = EmbeddingOptions(**options) if check is _by_endpoint else None
    return Grader(canonical, check, options, needs_expected, embeds)


def _pairs(name: str, rest: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    while rest:
        if rest.startswith("pattern="):
            found.append(("pattern", rest.removeprefix("pattern=")))
            break
        part, _, rest = rest.partition(",")
        option, equals, value = part.partition("=")
        if not equals:
            raise GraderOption(f"{name}: {part!r} is not option=value", hint="for example --grader numeric:tolerance=0.01", grader=name)
        found.append((option.strip(), value.strip()))
    return found
