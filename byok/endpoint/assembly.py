"""From the chunks of a streamed chat completion to the value that the endpoint would have sent without streaming.

So one reader, `answers`, serves both. Members of an odd type are passed over here as they are there; only what cannot be a chunk
at all is refused. Errors inside a stream are the client's work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from byok.endpoint.wire import whole

UsagePlace = Literal["missing", "empty_choices", "finish", "every", "other"]

MOST_CHARACTERS = 8_000_000
"""Most characters of all that an answer holds: some hundred times the longest of any model."""

_VALUE = 16
"""Characters that a value of any other type counts as: Python needs some 160 bytes for one."""

_ONCE = ("id", "model", "created", "service_tier", "request_id")
_TEXTS = ("reasoning", "reasoning_content", "refusal")


class BadChunk(ValueError):
    """A value that cannot be a chunk of a chat completion, or one too many. The text holds nothing of it."""


class Assembly:
    """Puts the chunks of one answer together. Only the choice with index 0 counts. Time is linear in what is added.

    Args:
        most_characters: Most characters of all texts together, and again of the log-probabilities.

    Attributes:
        finish_reason: The first that came, as given; two chunks may have one.
        pieces: Chunks that carried something that the model wrote.
    """

    def __init__(self, *, most_characters: int = MOST_CHARACTERS) -> None:
        self.finish_reason: str | None = None
        self.pieces = 0
        self._most, self._size = most_characters, 0
        self._once: dict[str, Any] = {}
        self._texts: dict[str, list[str]] = {}
        self._by_delta = False
        self._calls: list[_Call] = []
        self._call_at: dict[tuple[str, Any], _Call] = {}
        self._last_call: _Call | None = None
        self._function: _Call | None = None
        self._logprobs: dict[str, list[Any]] = {}
        self._logprobs_size = 0
        self._usage: dict[str, Any] | None = None
        self._place: UsagePlace = "missing"
        self._chunks = self._usages = self._running = 0

    @property
    def complete(self) -> bool:
        """Whether a finish reason came. A stream that ends without one was cut, however cleanly it ended."""
        return self.finish_reason is not None

    @property
    def usage_place(self) -> UsagePlace:
        """Where usage came.

        `missing` (nowhere, or its counts are all null); `every` (running counts: on all chunks, or on several before the end);
        otherwise where the last one came: `empty_choices` (a chunk without choices), `finish` (with a finish reason), `other`.
        """
        return "every" if self._running > 1 or self._usages == self._chunks > 1 else self._place

    def add(self, chunk: Mapping[str, Any]) -> bool:
        """Add the next chunk.

        Returns:
            Whether it carries a piece of what the model wrote: answer, reasoning, refusal, or a tool call.

        Raises:
            BadChunk: It is no object, its choices are no list of objects, a delta is no object, or the answer grows too long.
        """
        if not isinstance(chunk, Mapping):
            raise BadChunk("it is no object")
        choices = chunk.get("choices")
        if choices is None:
            choices = []  # SambaNova's own client calls them optional
        if not isinstance(choices, list) or not all(isinstance(choice, Mapping) for choice in choices):
            raise BadChunk("its choices are no list of objects")
        self._chunks += 1
        for name in _ONCE:
            self._keep_once(name, chunk.get(name))
        place: UsagePlace = "other" if choices else "empty_choices"
        wrote = False
        for position, choice in enumerate(choices):
            if not _is_first(choice, position):
                continue
            wrote = self._add_choice(choice) or wrote
            reason = choice.get("finish_reason")
            if isinstance(reason, str) and reason:
                place = "finish"
                if self.finish_reason is None:
                    self._grow(len(reason))
                    self.finish_reason = whole(reason)
        self._add_usage(chunk.get("usage"), place)
        self.pieces += wrote
        return wrote

    def completion(self) -> dict[str, Any]:
        """A `chat.completion` of what came so far.

        `content` is None when none came at all, and empty when only empty ones did. `usage`, `created`, `service_tier`,
        `request_id`, the choice's `logprobs` and all other members of the message are there only when they came. Log-probabilities
        are lists by name: `content` as OpenAI has it, the names of the legacy arrays, or `token_logprobs` for Together's numbers;
        too many of them are left out altogether, because the answer is worth more.
        """
        content = self._texts.get("content")
        message: dict[str, Any] = {"role": self._once.get("role", "assistant"), "content": None if content is None else "".join(content)}
        message |= {name: "".join(self._texts[name]) for name in _TEXTS if name in self._texts}
        if self._calls:
            message["tool_calls"] = [call.whole() for call in self._calls]
        if self._function is not None:
            message["function_call"] = self._function.function()
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        if self._logprobs:
            choice["logprobs"] = {name: list(values) for name, values in self._logprobs.items()}
        found: dict[str, Any] = {"id": None, "model": None, "object": "chat.completion"}
        found |= {name: self._once[name] for name in _ONCE if name in self._once}
        found["choices"] = [choice]
        return found if self._usage is None else found | {"usage": self._usage}

    def _grow(self, characters: int) -> None:
        self._size += characters
        if self._size > self._most:
            raise BadChunk(f"the answer is longer than {self._most} characters")

    def _keep_once(self, name: str, value: Any) -> None:
        if name in self._once or value == "" or isinstance(value, bool) or not isinstance(value, str | int | float):
            return
        self._grow(len(value) if isinstance(value, str) else _VALUE)
        self._once[name] = value

    def _add_choice(self, choice: Mapping[str, Any]) -> bool:
        delta = choice.get("delta")
        in_message = delta is None and choice.get("message") is not None
        if in_message and self._by_delta:
            return False  # some gateways close with all of it once more
        delta = choice["message"] if in_message else {} if delta is None else delta
        if not isinstance(delta, Mapping):
            raise BadChunk("its delta is no object")
        role = delta.get("role")
        self._keep_once("role", role if isinstance(role, str) else None)
        texts = list(_content(delta.get("content")))
        # Some servers send the same reasoning under two names: each is joined apart, and the reader takes one.
        texts += [(name, text) for name in _TEXTS if isinstance(text := delta.get(name), str)]
        calls = delta.get("tool_calls")
        fragments = [one for one in calls if isinstance(one, Mapping)] if isinstance(calls, list) else []
        function = delta.get("function_call")
        legacy, alone = choice.get("text"), not (in_message or texts or fragments or function)
        if alone and isinstance(legacy, str) and legacy:
            # Together writes everything twice, in `delta.content` and in the `text` of the older route.
            texts = [("content", legacy)]
        wrote = False
        for name, text in texts:
            wrote = self._add_text(name, text) or wrote
        for fragment in fragments:
            wrote = self._find_call(fragment).add(fragment, self._grow) or wrote
        if isinstance(function, Mapping):
            self._function = self._function or _Call()
            wrote = self._function.add({"function": function}, self._grow) or wrote
        self._add_logprobs(choice.get("logprobs"))
        self._by_delta = self._by_delta or (wrote and not in_message)
        return wrote

    def _add_text(self, name: str, text: str) -> bool:
        self._grow(len(text))
        pieces = self._texts.setdefault(name, [])
        if text:
            pieces.append(text)
        return bool(text)

    def _find_call(self, fragment: Mapping[str, Any]) -> _Call:
        """The tool call that a fragment belongs to: by its index, else by its id, else the last one."""
        index, name = fragment.get("index"), fragment.get("id")
        by_name = ("id", name) if isinstance(name, str) and name else None
        key = ("index", index) if isinstance(index, int | float) else by_name
        call = self._last_call if key is None else self._call_at.get(key)
        if call is None:
            self._grow(4 * _VALUE)
            call = _Call()
            self._calls.append(call)
            self._call_at |= {known: call for known in (key, by_name) if known is not None}
        self._last_call = call
        return call

    def _add_logprobs(self, found: Any) -> None:
        if isinstance(found, int | float) and not isinstance(found, bool):
            found = {"token_logprobs": found}
        elif isinstance(found, list):
            found = {"content": found}
        if not isinstance(found, Mapping) or self._logprobs_size > self._most:
            return
        self._logprobs_size += _weight(found)
        if self._logprobs_size > self._most:
            self._logprobs.clear()
            return
        for name, value in found.items():
            if value is not None:
                self._logprobs.setdefault(name, []).extend(value if isinstance(value, list) else [value])

    def _add_usage(self, usage: Any, place: UsagePlace) -> None:
        # Gateways write null counts when they know nothing, which must not hide what came before.
        if isinstance(usage, Mapping) and any(value is not None for value in usage.values()):
            self._usage, self._place = dict(usage), place
            self._usages += 1
            self._running += place == "other"


class _Call:
    """One tool call, or the legacy function call, as far as it came."""

    __slots__ = ("_arguments", "_decoded", "_texts")

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._arguments: list[str] = []
        self._decoded: Any = None

    def add(self, fragment: Mapping[str, Any], grow: Callable[[int], None]) -> bool:
        """Add a fragment; whether it carries a name or arguments."""
        function = fragment.get("function")
        function = function if isinstance(function, Mapping) else {}
        wrote = False
        for name, value in (("id", fragment.get("id")), ("type", fragment.get("type")), ("name", function.get("name"))):
            # The first one stays: some servers repeat them in every fragment.
            if name not in self._texts and isinstance(value, str) and value:
                grow(len(value))
                self._texts[name] = value
                wrote = wrote or name == "name"
        arguments = function.get("arguments")
        if isinstance(arguments, str) and arguments:
            grow(len(arguments))
            self._arguments.append(arguments)
            wrote = True
        elif isinstance(arguments, Mapping):
            grow(_weight(arguments))
            self._decoded, wrote = arguments, True
        return wrote

    def function(self) -> dict[str, Any]:
        """Its name (None when none came) and its arguments: joined, or the value that came instead of a text."""
        decoded = self._decoded is not None and not self._arguments
        return {"name": self._texts.get("name"), "arguments": self._decoded if decoded else "".join(self._arguments)}

    def whole(self) -> dict[str, Any]:
        """As a message without streaming lists it."""
        return {"id": self._texts.get("id"), "type": self._texts.get("type", "function"), "function": self.function()}


def _is_first(choice: Mapping[str, Any], position: int) -> bool:
    index = choice.get("index")
    return index == 0 if isinstance(index, int | float) else position == 0


def _content(value: Any) -> Iterator[tuple[str, str]]:
    """Texts and refusals of a content, read as `answers` reads that of a message: a string, null, or a list of parts."""
    for part in value if isinstance(value, list) else (value,):
        if isinstance(part, str):
            yield "content", part
        elif isinstance(part, Mapping) and isinstance(value, list):
            name = next((name for name in ("text", "refusal") if isinstance(part.get(name), str)), None)
            if name is not None:
                yield "content" if name == "text" else name, part[name]


def _weight(value: Any) -> int:
    """Characters that a JSON value counts as; without recursion, however deep it is."""
    weight, inner = 0, [value]
    while inner:
        one = inner.pop()
        weight += _VALUE
        if isinstance(one, str):
            weight += len(one)
        elif isinstance(one, list):
            inner.extend(one)
        elif isinstance(one, Mapping):
            weight += sum(map(len, one))
            inner.extend(one.values())
    return weight
