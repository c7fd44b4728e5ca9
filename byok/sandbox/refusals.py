"""Why a request is refused, in the sandbox's own terms; a dialect says it in the words of its provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a request.

    Attributes:
        code: What it is, in the codes of the OpenAI API (`invalid_type`, `unsupported_parameter`, ...); None when it has none.
        message: For a person.
        parameter: Member of the request that it is about.
        value: What was given there.
        place: Where exactly, when it lies inside the parameter: names and indexes from the body down.
    """

    code: str | None
    message: str
    parameter: str | None = None
    value: Any = None
    place: tuple[str | int, ...] = ()


class Refused(Exception):
    """A request that gets an error; never leaves the sandbox.

    Attributes:
        status: HTTP status in the OpenAI API; a dialect may have another one for it.
        problems: What is wrong, at least one, the first one first.
        headers: More response headers.
        upstream: Whether the model's server refuses it, and not a gateway before it.
    """

    def __init__(self, status: int, *problems: Problem, headers: dict[str, str] | None = None, upstream: bool = False) -> None:
        super().__init__(problems[0].message)
        self.status, self.problems, self.headers, self.upstream = status, problems, headers or {}, upstream

    @property
    def first(self) -> Problem:
        """The first problem: most providers tell of no other."""
        return self.problems[0]


def refused(
    status: int, message: str, code: str | None = None, parameter: str | None = None, value: Any = None, *, upstream: bool = False
) -> Refused:
    """A refusal for one problem."""
    return Refused(status, Problem(code, message, parameter, value), upstream=upstream)
