"""The last line of defence: keys that are in use are taken out of log records and errors, raw and encoded.

Nothing depends on it. Keys are kept out of messages at their source; this catches what a library, or a mistake, would still
write. `BYOK_REDACTION=off` switches it off, and all tests hold without it.
"""

from __future__ import annotations

import base64
import logging
import os
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any
from urllib.parse import quote

MASK = "[key]"

_SHORTEST = 8
"""A shorter key would take pieces out of ordinary words."""

_live: Counter[str] = Counter()
_forms: dict[str, tuple[str, ...]] = {}
_lock = threading.Lock()
_installed = False


def forms(secret: str) -> tuple[str, ...]:
    """A secret as it is, URL-encoded, in hex, and in base64 at each of the three alignments."""
    raw = secret.encode()
    found = [secret, quote(secret, safe=""), raw.hex()]
    for shift in range(3):
        # Without the characters at both ends, which its neighbours would decide.
        whole = (len(raw) + shift) // 3 * 4
        text = base64.b64encode(b"\0" * shift + raw).decode()[(0, 2, 3)[shift] : whole]
        found += [text, text.replace("+", "-").replace("/", "_")]
    return tuple(dict.fromkeys(form for form in found if len(form) >= _SHORTEST))


@contextmanager
def live(secret: str | None) -> Iterator[None]:
    """While this lasts, the secret is taken out of all log records of this process; and out of the error that ends it, if one does."""
    if secret is None or len(secret) < _SHORTEST or os.environ.get("BYOK_REDACTION") == "off":
        yield
        return
    install()
    with _lock:
        _live[secret] += 1
        _forms.setdefault(secret, forms(secret))
    try:
        yield
    except BaseException as error:
        # Whoever shows it later does so when the key is in use no more.
        _scrub_error(error, set())
        raise
    finally:
        with _lock:
            _live[secret] -= 1
            if not _live[secret]:
                del _live[secret], _forms[secret]


def scrub(text: str) -> str:
    """`text` without any live key, in whichever form."""
    # The longest first: one may be the beginning of another.
    for form in sorted({form for found in tuple(_forms.values()) for form in found}, key=len, reverse=True):
        if form in text:
            text = text.replace(form, MASK)
    return text


def install() -> None:
    """Put the scrubber between whoever logs and all handlers, and before the traceback of an uncaught error; once."""
    global _installed
    with _lock:
        if _installed:
            return
        _installed = True
    make, show = logging.getLogRecordFactory(), sys.excepthook

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = make(*args, **kwargs)
        if _forms:
            _scrub_record(made)
        return made

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        if _forms and scrub(text) != text:
            sys.stderr.write(scrub(text))
        else:
            show(kind, error, trace)

    logging.setLogRecordFactory(record)
    sys.excepthook = uncaught


def _scrub_error(error: BaseException | None, seen: set[int]) -> None:
    """Scrub an error, and those that it came from or holds, in place."""
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    with suppress(Exception):  # an error that cannot be changed is left to what shows it
        error.args = tuple(_scrub_value(value) for value in error.args)
        for name, value in list(vars(error).items()):
            if _scrub_value(value) != value:
                setattr(error, name, _scrub_value(value))
    for other in (error.__cause__, error.__context__, *(error.exceptions if isinstance(error, BaseExceptionGroup) else ())):
        _scrub_error(other, seen)


def _scrub_value(value: Any) -> Any:
    """A text, or the texts in a plain container, without any live key; anything else as it is."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, bytes):
        return scrub(value.decode("latin-1")).encode("latin-1")
    if type(value) in (list, tuple):
        return type(value)(_scrub_value(one) for one in value)
    return {name: _scrub_value(one) for name, one in value.items()} if type(value) is dict else value


def _scrub_record(record: logging.LogRecord) -> None:
    try:
        message = record.getMessage()
    except Exception:
        message = ""  # logging reports a wrong format itself
    if scrub(message) != message:
        record.msg, record.args = scrub(message), ()
    if record.exc_info and record.exc_info[1] is not None:
        text = "".join(traceback.format_exception(*record.exc_info))
        if scrub(text) != text:
            # Handlers that format the exception themselves would find the key in it: they get the scrubbed text alone.
            record.exc_text, record.exc_info = scrub(text).rstrip(), None
