"""The one base of every error that a person can cause or meet.

An error says what happened (`message`), what to do about it (`hint`), which name it has for machines (`code`) and with
which status the command line leaves (`exit_code`). It holds plain values only, never a request, a response or a secret,
so it can be pickled, logged and shown.
"""

from __future__ import annotations

from typing import ClassVar

Field = str | int | float | bool | None


class ByokError(Exception):
    """Base of all our errors.

    Args:
        message: What happened, for a person, without secrets.
        hint: What the person can do about it.
        **fields: Plain values that tell the case (a path, a line, a status). Never a secret.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 2
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", **fields: Field) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields = fields

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint, self.fields))

    def as_dict(self) -> dict[str, object]:
        """The stable JSON shape of an error: code, message, hint, whether the same may succeed later, fields."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
            "fields": dict(self.fields),
        }


def _rebuild(kind: type[ByokError], message: str, hint: str, fields: dict[str, Field]) -> ByokError:
    return kind(message, hint=hint, **fields)


class InputError(ByokError):
    """Usage or bad input: nothing was stored."""

    code = "bad_input"
    exit_code = 2


class NotFound(InputError):
    """A name that nothing has here."""

    code = "not_found"


class NotPermitted(ByokError):
    """The member may not do this."""

    code = "not_permitted"
    exit_code = 3


class OutsideError(ByokError):
    """An outside system failed: endpoint, key store, server."""

    code = "outside_failure"
    exit_code = 4
