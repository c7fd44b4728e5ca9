"""What the sandbox says to a chat request; pure, and the same each time for the same request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from byok.sandbox import tokens
from byok.sandbox.answers import right_text, share, wrong_text
from byok.sandbox.chats import Chat
from byok.sandbox.faults import Fault
from byok.sandbox.judging import Form, form_of_schema, form_of_text, occurs, sections
from byok.sandbox.matching import QuestionIndex
from byok.sandbox.schemas import with_text
from byok.sandbox.toolcalls import Call, called

Kind = Literal["right", "wrong", "unmatched", "judged"]
DONT_KNOW = "I do not know"
_THOUGHTS = (
    "I read what is asked.",
    "Then I look for what I know about it.",
    "I check once more that nothing else is meant.",
    "Now I can answer.",
)
_THOUGHTS_BY_EFFORT = {"none": 0, "minimal": 1, "low": 1, "medium": 2, None: 2}


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        kind: What it is.
        pieces: Its text in parts of one token each; None when it has no text.
        reasoning: Its reasoning, in such parts; None when the model does not reason.
        call: The call of a tool, None without one.
        refusal: The model's own refusal.
        finish_reason: `stop`, `tool_calls`, or `length` when it was cut.
        stopped_by: The stop text that ended it.
        prompt_tokens: Of the whole prompt.
        completion_tokens: Of text, reasoning and call.
        reasoning_tokens: Of the reasoning.
        usage: Stands in the place of the usage; None leaves it.
    """

    kind: Kind
    pieces: tuple[str, ...] | None
    reasoning: tuple[str, ...] | None
    call: Call | None
    refusal: str | None
    finish_reason: str
    stopped_by: str | None
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    usage: Mapping[str, object] | None = None

    @property
    def text(self) -> str | None:
        """The text as a whole."""
        return None if self.pieces is None else "".join(self.pieces)

    @property
    def thoughts(self) -> str | None:
        """The reasoning as a whole."""
        return None if self.reasoning is None else "".join(self.reasoning)

    def altered(self, fault: Fault | None) -> Reply:
        """The reply as a fault changes it; its tokens stay those of the true one."""
        if fault is None:
            return self
        changed = self
        if fault.refusal is not None:
            changed = replace(changed, pieces=None, refusal=fault.refusal, call=None)
        elif fault.text is not None:
            changed = replace(changed, pieces=tokens.pieces(fault.text), call=None)
        if changed.call is None and changed.finish_reason == "tool_calls":
            changed = replace(changed, finish_reason="stop")
        return replace(changed, finish_reason=fault.finish_reason or changed.finish_reason, usage=fault.usage)

    def thinking_aloud(self) -> Reply:
        """The reply with its reasoning inside the text, between tags; the tags count nothing."""
        if self.reasoning is None:
            return self
        return replace(self, pieces=("<think>\n", *self.reasoning, "\n</think>\n\n", *(self.pieces or ())), reasoning=None)


_ORDER = re.compile(r"(?i)\breply only:?\s+(\S{1,100})")
"""What a system text may tell it to say to a question that it does not know, so that the text's effect can be seen."""


class Mind:
    """What the sandbox knows, and for which questions it is wrong.

    Args:
        answers: Unique questions and their expected answers.
        accuracy: Share of the questions that it answers rightly.
        judge_accuracy: Share of the questions about which it judges rightly.
        seed: Chooses which.
    """

    def __init__(self, answers: list[tuple[str, str]], *, accuracy: float, judge_accuracy: float, seed: int) -> None:
        self.expected = dict(answers)
        self.index = QuestionIndex(self.expected)
        self.right = share(self.expected, accuracy, f"answer:{seed}")
        self.judged_right = share(self.expected, judge_accuracy, f"judge:{seed}")

    def answer(self, chat: Chat, *, limit: int | None, reasons: bool, blank: bool = False) -> Reply:
        """Answer a chat.

        Args:
            chat: The request.
            limit: Most tokens of the answer, its reasoning included.
            reasons: Whether the model reasons, as much as the request wants.
            blank: Whether it writes line ends up to the limit, as a model does that is held to JSON and not told of it.
        """
        call = called(chat)
        text, kind = self._say(chat) if call is None else ("", "unmatched")
        stopped = min((stop for stop in chat.stop if call is None and stop in text), key=text.index, default=None)
        if stopped is not None:
            text = text[: text.index(stopped)]
        said = ("\n",) * (limit or 0) if blank else tokens.pieces(text if call is None else call.arguments)
        # A model that does not reason has no reasoning; one that reasons may have been told not to.
        thoughts = _thoughts(chat.effort) if reasons else ()
        thought = thoughts if limit is None else thoughts[:limit]
        spoken = said if limit is None else said[: limit - len(thought)]
        whole = len(thought) == len(thoughts) and len(spoken) == len(said) and not blank
        spoken_tokens = len(spoken) if blank else tokens.count("".join(spoken))
        return Reply(
            kind=kind,
            pieces=None if call is not None else spoken,
            reasoning=thought or None,
            call=call and Call(call.name, "".join(spoken)),
            refusal=None,
            finish_reason="length" if not whole else "tool_calls" if call else "stop",
            stopped_by=stopped if whole else None,
            prompt_tokens=chat.prompt_tokens,
            completion_tokens=len(thought) + spoken_tokens,
            reasoning_tokens=len(thought),
        )

    def _say(self, chat: Chat) -> tuple[str, Kind]:
        contents, schema, last = chat.contents, chat.schema, chat.question
        form = form_of_schema(schema) if schema is not None else form_of_text("\n".join(content for _, content in contents))
        if form is not None:
            return self._judge(form, last), "judged"
        question = self.index.find(last)
        if question is None:
            told = next((found[1] for role, content in contents if role == "system" and (found := _ORDER.search(content))), DONT_KNOW)
            return _shaped(told, chat), "unmatched"
        kind: Kind = "right" if question in self.right else "wrong"
        said = (right_text if kind == "right" else wrong_text)(self.expected[question])
        return _shaped(said, chat), kind

    def _judge(self, form: Form, prompt: str) -> str:
        parts = sections(prompt)
        question = self.index.find(parts.get("INPUT", prompt))
        if question is None:
            return _verdict(form, form.unknown, "The question is not one that I know.")
        # Without fences, what follows the question is what is judged.
        output = parts.get("OUTPUT", prompt.rpartition(question)[2])
        good = occurs(self.expected[question], output) == (question in self.judged_right)
        reason = "The output holds the expected answer." if good else "The output does not hold the expected answer."
        return _verdict(form, form.good if good else form.bad, reason)


def _thoughts(effort: str | None) -> tuple[str, ...]:
    return tokens.pieces(" ".join(_THOUGHTS[: _THOUGHTS_BY_EFFORT.get(effort, len(_THOUGHTS))]))


def _verdict(form: Form, value: str | int, reason: str) -> str:
    if form.as_json:
        return orjson.dumps({"reasoning": reason, form.name: value}).decode()
    return f"{reason}\nVERDICT: {value}"


def _shaped(text: str, chat: Chat) -> str:
    """The text itself, or JSON in the form that was asked for, with the text in it where it has a place."""
    if chat.schema is not None:
        return _json(with_text(chat.schema, text))
    return _json({"answer": text}) if chat.json_object else text


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
