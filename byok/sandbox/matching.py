"""Find which known question a prompt asks."""

from __future__ import annotations

from collections.abc import Iterable

_ANCHOR = 24


class QuestionIndex:
    """Known questions, found in a prompt by exact text, else as the longest one that the prompt contains.

    Containment looks up, at each place of the prompt, the first letters of all questions in one table: the time grows with the
    prompt and not with the number of questions.
    """

    def __init__(self, questions: Iterable[str]) -> None:
        self._known = frozenset(questions)
        self._anchors: dict[str, list[str]] = {}
        self._short = sorted((question for question in self._known if len(question) < _ANCHOR), key=len, reverse=True)
        for question in sorted(self._known, key=len, reverse=True):
            if len(question) >= _ANCHOR:
                self._anchors.setdefault(question[:_ANCHOR], []).append(question)

    def find(self, prompt: str) -> str | None:
        """The question that `prompt` is or contains; None when it has none."""
        prompt = prompt.strip()
        if prompt in self._known:
            return prompt
        best = ""
        for start in range(len(prompt) - _ANCHOR + 1):
            for question in self._anchors.get(prompt[start : start + _ANCHOR], ()):
                if len(question) <= len(best):
                    break
                if prompt.startswith(question, start):
                    best = question
                    break
        return best or next((question for question in self._short if question in prompt), None)
