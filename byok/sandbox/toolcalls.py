"""Tools: read what a request offers, and choose and make the call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from byok.sandbox.capabilities import Capabilities
from byok.sandbox.chats import Chat, Rules, Tool
from byok.sandbox.refusals import Problem
from byok.sandbox.schemas import minimal

_ASKS = ("use the tool", "use a tool", "call the tool", "call a tool", "call the function", "call a function", "use the function")


@dataclass(frozen=True)
class Call:
    """One call of a tool: its name, and its arguments as JSON text."""

    name: str
    arguments: str


def read_tools(body: Mapping[str, Any], rules: Rules, can: Capabilities) -> tuple[tuple[Tool, ...], str, str | None, list[Problem]]:
    """The tools of a request, how one is to be chosen, the one that is named, and what is wrong."""
    given, choice = body.get("tools"), body.get("tool_choice")
    if given is None:
        wrong = Problem("invalid_value", "'tool_choice' is only allowed when 'tools' are specified.", "tool_choice", choice)
        return (), "none", None, [] if choice in (None, "none") else [wrong]
    state = can.state("tools")
    if state == "off":
        return (), "none", None, [Problem("unsupported_parameter", "Unsupported parameter: 'tools'.", "tools", given)]
    if not isinstance(given, list) or not given:
        return (), "none", None, [Problem("array_below_min_length", "'tools' must be a list with at least one tool.", "tools", given)]
    tools: list[Tool] = []
    problems: list[Problem] = []
    for number, tool in enumerate(given):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
            problems.append(Problem("invalid_type", "Each tool needs 'type' and 'function.name'.", "tools", tool, (number,)))
        else:
            tools.append(Tool(function["name"], function.get("parameters")))
    kind, named = _choice(choice, rules)
    if kind is None or (named is not None and named not in [tool.name for tool in tools]):
        problems.append(Problem("invalid_value", "'tool_choice' is no known way to choose, or names no given tool.", "tool_choice", choice))
    if kind == "auto" and rules.auto_tools_flag and can.state("auto_tools") == "off":
        needed = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
        problems.append(Problem("unsupported_value", needed, "tool_choice", choice))
    if problems or state == "ignored":
        return (), "none", None, problems
    return tuple(tools), kind or "none", named, []


def _choice(given: Any, rules: Rules) -> tuple[str | None, str | None]:
    if given in (None, "auto"):
        return "auto", None
    if given == "any" and rules.any_tool:
        return "required", None
    if given in ("none", "required"):
        return str(given), None
    function = given.get("function") if isinstance(given, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return ("named", name) if isinstance(name, str) else (None, None)


def called(chat: Chat) -> Call | None:
    """The call that the model makes, None when it answers in words.

    `required` calls the tool whose name stands in the question, else the first. `auto` calls one only when its name stands there
    or the question asks for a tool, and not when the last message is the result of one.
    """
    if not chat.tools or chat.tool_choice == "none":
        return None
    asked = chat.question.casefold()
    wanted = next((tool for tool in chat.tools if tool.name.casefold() in asked), None)
    if chat.tool_choice == "named":
        wanted = next(tool for tool in chat.tools if tool.name == chat.named_tool)
    elif chat.tool_choice == "auto":
        if chat.messages[-1:] and chat.messages[-1].role == "tool":
            return None
        if wanted is None and not any(words in asked for words in _ASKS):
            return None
    tool = wanted or chat.tools[0]
    arguments = minimal(tool.parameters) if isinstance(tool.parameters, Mapping) else {}
    return Call(tool.name, orjson.dumps(arguments if isinstance(arguments, dict) else {}).decode())
