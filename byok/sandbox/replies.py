"""What the sandbox says to a chat request; pure, and the same each time for the same request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import orjson

from byok.sandbox import tokens
from byok.sandbox.answers import right_text, share, wrong_text
from byok.sandbox.judging import Form, form_of_schema, form_of_text, occurs, sections
from byok.sandbox.matching import QuestionIndex

Kind = Literal["right", "wrong", "unmatched", "judged"]
DONT_KNOW = "I do not know"


@dataclass(frozen=True)
class Spoken:
    """An answer.

    Attributes:
        text: Cut to the limit that was asked for.
        kind: What it was.
        finish_reason: `stop`, or `length` when it was cut.
        prompt_tokens: Of all messages.
        completion_tokens: Of the text.
    """

    text: str
    kind: Kind
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


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

    def answer(self, contents: list[tuple[str, str]], *, limit: int | None, schema: Any) -> Spoken:
        """Answer a chat.

        Args:
            contents: Role and text of each message.
            limit: Most tokens of the answer.
            schema: JSON schema that the answer has to follow, or None.
        """
        text, kind = self._say(contents, schema)
        spoken = text if limit is None else tokens.cut(text, limit)
        return Spoken(
            text=spoken,
            kind=kind,
            finish_reason="stop" if spoken == text else "length",
            prompt_tokens=tokens.count_messages(content for _, content in contents),
            completion_tokens=tokens.count(spoken),
        )

    def _say(self, contents: list[tuple[str, str]], schema: Any) -> tuple[str, Kind]:
        last = next((content for role, content in reversed(contents) if role == "user"), "")
        form = form_of_schema(schema) if schema is not None else form_of_text("\n".join(content for _, content in contents))
        if form is not None:
            return self._judge(form, last), "judged"
        question = self.index.find(last)
        if question is None:
            return _as_schema(DONT_KNOW, schema), "unmatched"
        kind: Kind = "right" if question in self.right else "wrong"
        said = (right_text if kind == "right" else wrong_text)(self.expected[question])
        return _as_schema(said, schema), kind

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


def _verdict(form: Form, value: str | int, reason: str) -> str:
    if form.as_json:
        return orjson.dumps({"reasoning": reason, form.name: value}).decode()
    return f"{reason}\nVERDICT: {value}"


def _as_schema(text: str, schema: Any) -> str:
    """The text itself, or an object with it as the first string property of the schema."""
    if schema is None:
        return text
    properties = schema.get("properties") if isinstance(schema, dict) else None
    strings = [name for name, member in (properties or {}).items() if isinstance(member, dict) and member.get("type") == "string"]
    return orjson.dumps({strings[0] if strings else "answer": text}).decode()
