"""The last line of defence: while a key is in use, no log record and no uncaught traceback shows it, in whichever form."""

import base64
import logging
import subprocess
import sys
import traceback
import urllib.parse

import pytest

from byok.endpoint import EndpointError
from byok.redaction import MASK, live, scrub

KEY = "sk-redaction/4f+3e2d1c0b9a8f7e6d5c4b3a2918070"
FORMS = {
    "raw": KEY,
    "url": urllib.parse.quote(KEY, safe=""),
    "hex": KEY.encode().hex(),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 inside": base64.b64encode(b"Authorization: Bearer " + KEY.encode() + b"\r\n").decode(),
    "url-safe base64": base64.urlsafe_b64encode(b"??" + KEY.encode()).decode(),
}


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.DEBUG)
    return lambda: "\n".join([caplog.text, *(str(record.__dict__) for record in caplog.records)])


@pytest.mark.parametrize("form", FORMS)
def test_a_key_in_use_is_in_no_record(logged, form):
    with live(KEY):
        logging.getLogger("library").warning("sent %s", FORMS[form])
        logging.getLogger("library").error(f"sent {FORMS[form]}")
        try:
            raise ValueError(f"refused: {FORMS[form]}")
        except ValueError:
            logging.getLogger("library").exception("it failed")
    text = logged()
    assert text.count(MASK) >= 3 and "it failed" in text
    # At an alignment of base64, a few characters at the ends belong to its neighbours too; none of the middle is left.
    assert FORMS[form] not in text and FORMS[form][8:-8] not in text


def test_nothing_else_is_changed_and_nothing_once_the_key_is_no_longer_in_use(logged):
    with live(KEY), live("short"):
        logging.getLogger("library").warning("a %s message of %d words, short", "plain", 4)
    logging.getLogger("library").warning("afterwards: %s", KEY)
    text = logged()
    assert "a plain message of 4 words, short" in text and f"afterwards: {KEY}" in text
    assert scrub(KEY) == KEY


def test_a_key_that_two_hold_is_scrubbed_until_the_last_lets_go():
    with live(KEY):
        with live(KEY):
            assert scrub(f"x {KEY}") == f"x {MASK}"
        assert scrub(f"x {KEY}") == f"x {MASK}"
    assert scrub(KEY) == KEY


@pytest.mark.parametrize("form", FORMS)
def test_an_error_that_leaves_while_a_key_is_in_use_does_not_take_it_along(form):
    with pytest.raises(EndpointError) as caught, live(KEY):
        try:
            raise ValueError("first", FORMS[form], {"sent": [FORMS[form].encode()]})
        except ValueError:
            raise EndpointError(f"said {FORMS[form]}", hint=FORMS[form], detail=f"x{FORMS[form]}y") from None
    error = caught.value
    faces = [str(error), repr(error), error.hint, str(error.fields), repr(error.__context__), "".join(traceback.format_exception(error))]
    assert all(FORMS[form][8:-8] not in face for face in faces)


@pytest.mark.parametrize(("switch", "shown"), [("on", False), ("off", True)])
def test_an_uncaught_error_shows_no_key_unless_it_is_switched_off(switch, shown):
    code = f"from byok.redaction import live\nwith live({KEY!r}):\n    raise RuntimeError('refused: ' + {KEY!r})"
    # A traceback shows source lines, and the key stands in one here: read from standard input, there are none to show.
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, env={"BYOK_REDACTION": switch}, check=False)
    assert done.returncode == 1 and "RuntimeError: refused: " in done.stderr
    assert (KEY in done.stderr) is shown
