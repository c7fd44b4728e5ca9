"""Read a chat request, and find all that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from byok.sandbox.capabilities import Capabilities
from byok.sandbox.chats import Chat, Rules
from byok.sandbox.messages import read_messages
from byok.sandbox.refusals import Problem, Refused
from byok.sandbox.toolcalls import read_tools


class ChatReader:
    """Reads one request; a provider with other members overrides a method.

    Args:
        body: The request.
        rules: What the provider takes.
        can: What the model can do.
        model_id: The model for requests that name none.
    """

    def __init__(self, body: Mapping[str, Any], rules: Rules, can: Capabilities, model_id: str) -> None:
        self.body = {name: value for name, value in body.items() if value is not None}
        self.rules, self.can, self.model_id = rules, can, model_id
        self.problems: list[Problem] = []

    def read(self) -> Chat:
        """The request.

        Raises:
            Refused: With all of its problems.
        """
        stream, include_usage, continuous = self.streaming()
        if self.body.get("n", 1) != 1:
            self.wrong("invalid_value", "Only n=1 is supported.", "n")
        limit = self.limit()
        messages, problems = read_messages(self.body.get("messages"), self.rules, self.can)
        self.problems += problems
        json_object, schema = self.response_format()
        tools, choice, named, problems = read_tools(self.body, self.rules, self.can)
        self.problems += problems
        if tools and self.rules.tools_or_format and (json_object or schema is not None):
            self.wrong("invalid_value", "'tools' and 'response_format' cannot be used together.", "response_format")
        logprobs, top, legacy = self.logprobs()
        self.sampling()
        chat = Chat(
            model=str(self.body.get("model", self.model_id)),
            messages=tuple(messages),
            limit=limit,
            stop=self.stop(),
            stream=stream,
            include_usage=include_usage,
            continuous_usage=continuous,
            logprobs=logprobs,
            top_logprobs=top,
            legacy_logprobs=legacy,
            json_object=json_object,
            schema=schema,
            tools=tools,
            tool_choice=choice,
            named_tool=named,
            effort=self.effort(),
            body=self.body,
        )
        if self.problems:
            raise Refused(400, *self.problems)
        return chat

    def wrong(self, code: str, message: str, parameter: str, place: tuple[str | int, ...] = ()) -> None:
        """Note a problem."""
        self.problems.append(Problem(code, message, parameter, self.body.get(parameter), place))

    def allowed(self, feature: str, parameter: str) -> bool:
        """Whether a feature that is asked for has an effect; a problem is noted when it is refused."""
        state = self.can.state(feature)
        if state == "off":
            self.wrong("unsupported_parameter", f"Unsupported parameter: '{parameter}'.", parameter)
        return state == "on"

    def streaming(self) -> tuple[bool, bool, bool]:
        """Whether to stream, whether the stream ends with usage, and whether each chunk has usage."""
        asked = self.body.get("stream", False)
        if not isinstance(asked, bool):
            self.wrong("invalid_type", "'stream' must be true or false.", "stream")
        stream = asked is True and self.allowed("streaming", "stream")
        options = self.body.get("stream_options")
        if options is None:
            return stream, False, False
        if not isinstance(options, dict):
            self.wrong("invalid_type", "'stream_options' must be an object.", "stream_options")
            return stream, False, False
        if asked is not True:
            self.wrong("invalid_value", "'stream_options' is only allowed when 'stream' is enabled.", "stream_options")
        elif self.allowed("stream_options", "stream_options"):
            return stream, options.get("include_usage") is True, options.get("continuous_usage_stats") is True
        return stream, False, False

    def limit(self) -> int | None:
        """Most tokens of the answer."""
        given = [name for name in self.rules.limits if name in self.body]
        if len(given) > 1 and self.rules.limits_exclusive:
            self.wrong("invalid_value", f"Only one of {' and '.join(map(repr, given))} may be given.", given[0])
        for name in given[:1]:
            value = self.body[name]
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                self.wrong("integer_below_min_value", f"'{name}' must be at least 1.", name)
                return None
            return value
        return None

    def response_format(self) -> tuple[bool, Any]:
        """Whether JSON is asked for, and the schema."""
        wanted = self.body.get("response_format")
        kind = wanted.get("type") if isinstance(wanted, dict) else None
        if wanted is None or kind == "text":
            return False, None
        state = self.can.state(kind) if kind in ("json_object", "json_schema") else "off"
        if state == "off":
            self.wrong("unsupported_parameter", f"'response_format' of type '{kind}' is not supported.", "response_format")
        if state != "on":
            return False, None
        return (True, None) if kind == "json_object" else (False, self.schema(wanted))

    def schema(self, wanted: dict[str, Any]) -> Any:
        """The schema of a response format."""
        described = wanted.get("json_schema")
        if not isinstance(described, dict) or not isinstance(described.get("name"), str) or not isinstance(described.get("schema"), dict):
            self.wrong(
                "missing_required_parameter",
                "'response_format.json_schema' needs 'name' and 'schema'.",
                "response_format",
                ("json_schema",),
            )
            return None
        return described["schema"]

    def logprobs(self) -> tuple[bool, int, bool]:
        """Whether log probabilities are asked for, how many alternatives, and whether in the older way."""
        asked, top = self.body.get("logprobs", False), self.body.get("top_logprobs", 0)
        if "logprobs" not in self.body and "top_logprobs" not in self.body:
            return False, 0, False
        number = isinstance(asked, int) and not isinstance(asked, bool)
        most = self.rules.most_logprobs
        if number and most is not None:
            if not 0 <= asked <= most:
                self.wrong("integer_above_max_value", f"'logprobs' must lie between 0 and {most}.", "logprobs")
        elif number or not isinstance(asked, bool) or (not self.rules.logprobs_flag and "logprobs" in self.body):
            kind = "true or false" if self.rules.logprobs_flag else "an integer"
            self.wrong("invalid_type", f"'logprobs' must be {kind}.", "logprobs")
            return False, 0, False
        if not isinstance(top, int) or isinstance(top, bool) or not 0 <= top <= self.rules.most_top_logprobs:
            self.wrong("integer_above_max_value", f"'top_logprobs' must lie between 0 and {self.rules.most_top_logprobs}.", "top_logprobs")
            return False, 0, False
        if top and not asked:
            self.wrong("invalid_value", "'top_logprobs' needs 'logprobs'.", "top_logprobs")
        if not asked or not self.allowed("logprobs", "logprobs"):
            return False, 0, False
        return True, max(top, int(asked)) if number else top, number

    def sampling(self) -> None:
        """Check the ranges of what steers sampling; the sandbox itself never samples."""
        low, high = self.rules.temperature
        ranges = {"temperature": (low, high), "top_p": (0, 1), "presence_penalty": (-2, 2), "frequency_penalty": (-2, 2)}
        for name, (least, most) in ranges.items():
            value = self.body.get(name)
            if value is None:
                continue
            if not isinstance(value, int | float) or isinstance(value, bool):
                self.wrong("invalid_type", f"'{name}' must be a number.", name)
            elif value > most:
                self.wrong("decimal_above_max_value", f"'{name}' must be at most {most}.", name)
            elif value < least or (name == "top_p" and value == self.rules.least_top_p):
                self.wrong("decimal_below_min_value", f"'{name}' must be at least {least}.", name)

    def stop(self) -> tuple[str, ...]:
        """Texts that end the answer."""
        given = self.body.get("stop", [])
        if isinstance(given, str) and self.rules.stop_as_text:
            given = [given]
        if not isinstance(given, list) or not all(isinstance(text, str) and text for text in given):
            kinds = "a text or a list of texts" if self.rules.stop_as_text else "a list of texts"
            self.wrong("invalid_type", f"'stop' must be {kinds}, none of them empty.", "stop")
            return ()
        if len(given) > self.rules.most_stops:
            self.wrong("array_above_max_length", f"'stop' takes at most {self.rules.most_stops} texts.", "stop")
        return tuple(given)

    def effort(self) -> str | None:
        """How much reasoning is asked for."""
        given = self.body.get("reasoning_effort")
        if given is None:
            return None
        if isinstance(given, self.rules.effort_kinds) and not isinstance(given, str):
            given = "none" if given is False or given == 0 else "medium"
        elif given not in self.rules.efforts:
            names = ", ".join(map(repr, self.rules.efforts))
            self.wrong("invalid_value", f"'reasoning_effort' must be one of {names}.", "reasoning_effort")
            return None
        state = self.can.state("reasoning")
        if state == "off" and given != "none" and self.rules.effort_refused:
            self.allowed("reasoning", "reasoning_effort")
        return str(given) if state == "on" else None
