"""Read the messages of a chat request: roles, texts, images."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from byok.sandbox.capabilities import Capabilities
from byok.sandbox.chats import Message, Rules
from byok.sandbox.refusals import Problem

_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,(?P<bytes>.+)", re.DOTALL)
_SYSTEM = ("system", "developer")


def read_messages(given: Any, rules: Rules, can: Capabilities) -> tuple[list[Message], list[Problem]]:
    """The messages, and what is wrong with them."""
    if not isinstance(given, list) or not given:
        return [], [Problem("invalid_type", "'messages' must be a list with at least one message.", "messages", given)]
    found: list[Message] = []
    problems: list[Problem] = []
    for number, message in enumerate(given):
        place = (number,)
        text = _text(message)
        if text is None or not isinstance(message.get("role"), str):
            problems.append(Problem("invalid_type", "Each message needs 'role' and 'content'.", "messages", message, place))
            continue
        if rules.message_members is not None:
            problems += [
                Problem("unknown_parameter", f"Unknown member of a message: '{name}'.", "messages", message[name], (number, name))
                for name in message
                if name not in rules.message_members
            ]
        if message["role"] in _SYSTEM:
            state = can.state("system")
            if state == "off":
                problems.append(
                    Problem(
                        "unsupported_value",
                        "Messages of the role 'system' are not supported.",
                        "messages",
                        message["role"],
                        (number, "role"),
                    )
                )
            if state != "on":
                continue
        images, wrong = _images(message.get("content"), rules, can, number)
        problems += wrong
        found.append(Message(message["role"], text, images))
    return found, problems


def _text(message: Any) -> str | None:
    if not isinstance(message, dict):
        return None
    content = message.get("content")
    if content is None and message.get("role") == "assistant" and message.get("tool_calls"):
        return ""
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return content if isinstance(content, str) else None


def _images(content: Any, rules: Rules, can: Capabilities, number: int) -> tuple[int, list[Problem]]:
    """How many images a message shows. The sandbox never fetches one, so only those that come as bytes are taken."""
    if not isinstance(content, list):
        return 0, []
    seen, problems = 0, []
    for index, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "image_url":
            continue
        place = (number, "content", index)
        state = can.state("vision")
        given = part.get("image_url")
        url = given.get("url") if isinstance(given, dict) else given
        if state == "off":
            problems.append(Problem("unsupported_value", "The model does not support images ('image_url').", "messages", None, place))
        elif state == "on" and not _is_image(url):
            about = "could not be fetched" if rules.web_images and str(url).startswith("http") else "must be a data URL with base64"
            problems.append(Problem("invalid_image_url", f"The image {about}.", "messages", None, place))
        elif state == "on":
            seen += 1
    return seen, problems


def _is_image(url: Any) -> bool:
    found = _DATA_URL.fullmatch(url) if isinstance(url, str) else None
    try:
        return found is not None and bool(base64.b64decode(found["bytes"], validate=True))
    except binascii.Error:
        return False
