"""From the bytes of a `text/event-stream` to its events, whatever pieces the network cuts it into.

Lines and fields as in WHATWG HTML, section 9.2.6, with two differences: bytes that are not UTF-8 are refused instead of replaced,
and an event without its closing blank line is given at the end of the body, because some servers leave that line out.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

MOST_BYTES = 1024 * 1024
"""Most bytes of a line, and of the data of one event: a chunk of an answer has some hundred."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
_STARTS = (b":", b"data:", b"event:", b"id:", b"retry:")
_HEAD = len(codecs.BOM_UTF8) + max(map(len, _STARTS))


@dataclass(frozen=True)
class Event:
    """One event of a stream.

    Attributes:
        data: Its `data` lines, joined by line feeds; may be empty.
        name: Its `event` field; empty when it has none.
    """

    data: str
    name: str = ""


class BadStream(ValueError):
    """Bytes that are no event stream within our limits. The text holds nothing of them."""


class Decoder:
    """Takes the bytes of one stream in order and gives its events as soon as they are complete.

    The events, and where the stream is refused, depend on the bytes alone and not on how they are cut. Time is linear in the
    bytes, memory bounded by `most_bytes` and the piece that is fed.

    Args:
        most_bytes: Most bytes of a line without its end, and of the data of an event.

    Attributes:
        comments: Comment lines so far; servers send them to keep a connection open.
        looks_like_sse: Whether the first line that is not blank is one of an event stream. None as long as that is not known;
            False, often after the first byte already, when JSON or a page came instead.
    """

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self.comments = 0
        self.looks_like_sse: bool | None = None
        self._most = most_bytes
        self._line = bytearray()
        self._data = bytearray()
        self._name = ""
        self._first_line = True
        self._after_cr = False
        self._problem: str | None = None

    def feed(self, part: bytes) -> list[Event]:
        """The events that these bytes complete.

        Events before a bad line are still given; then the next call raises.

        Raises:
            BadStream: The stream is not UTF-8, or a line or an event is too large; so does every later call.
        """
        events: list[Event] = []
        if self._problem is None:
            try:
                for event in self._events(part):
                    events.append(event)
            except BadStream as error:
                self._problem = str(error)
        if not events:
            self._check()
        return events

    def end(self) -> Event | None:
        """The event that the end of the body completes, if some of its data came; to be called once.

        Its last line may be cut. A character that is cut in its middle becomes U+FFFD, so that no cut JSON looks whole.

        Raises:
            BadStream: As `feed`.
        """
        self._check()
        try:
            event = None
            if self._line:
                self._mend()
                event = self._end_line()
            return event or self._dispatch()
        except BadStream as error:
            self._problem = str(error)
            raise

    def _check(self) -> None:
        if self._problem is not None:
            raise BadStream(self._problem)

    def _events(self, part: bytes) -> Iterator[Event]:
        if not part:
            return
        # A line ends with its CR already, so that its event need not wait for a LF that may never come.
        start = 1 if self._after_cr and part.startswith(b"\n") else 0
        self._after_cr = part.endswith(b"\r")
        for found in _LINE_END.finditer(part, start):
            self._take(part[start : found.start()])
            start = found.end()
            event = self._end_line()
            if event is not None:
                yield event
        self._take(part[start:])

    def _take(self, piece: bytes) -> None:
        """Add a piece to the open line."""
        if self.looks_like_sse is None and piece:
            self._look(piece)
        if len(self._line) + len(piece) > self._most:
            raise BadStream(f"a line is larger than {self._most} bytes")
        self._line += piece

    def _look(self, piece: bytes) -> None:
        """Tell from the start of an open line, if that is enough, whether this is an event stream."""
        head = (bytes(self._line[:_HEAD]) + piece[:_HEAD])[:_HEAD]
        if self._first_line:
            if codecs.BOM_UTF8.startswith(head):
                return
            head = head.removeprefix(codecs.BOM_UTF8)
        if head.startswith(_STARTS):
            self.looks_like_sse = True
        elif head.strip() and not any(start.startswith(head) for start in _STARTS):
            self.looks_like_sse = False

    def _end_line(self) -> Event | None:
        line = bytes(self._line)
        self._line.clear()
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line:
            return self._dispatch()
        if self.looks_like_sse is None and line.strip():
            # A field may lack its colon.
            self.looks_like_sse = line.startswith(_STARTS) or line + b":" in _STARTS
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            if len(self._data) + len(value) > self._most:
                raise BadStream(f"an event is larger than {self._most} bytes")
            self._data += value + b"\n"
        elif name == b"event":
            self._name = _text(value)
        else:
            _text(line)
            self.comments += not name
        return None

    def _dispatch(self) -> Event | None:
        data, name = bytes(self._data), self._name
        self._data.clear()
        self._name = ""
        return Event(_text(data[:-1]), name) if data else None

    def _mend(self) -> None:
        """Replace a character at the end of the open line of which only a part came."""
        try:
            _, whole = codecs.utf_8_decode(bytes(self._line), "strict", False)
        except UnicodeDecodeError:
            return  # refused with the line, or with its event
        if whole < len(self._line):
            self._line[whole:] = "\ufffd".encode()


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    # Outside the `except`: the library's error holds the bytes.
    raise BadStream("it is not UTF-8")
