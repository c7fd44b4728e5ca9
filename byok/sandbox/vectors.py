"""Read a request for embeddings, and answer it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from byok.sandbox import tokens
from byok.sandbox.refusals import Problem, Refused, refused
from byok.sandbox.settings import Settings


@dataclass(frozen=True)
class Wanted:
    """A request for embeddings.

    Attributes:
        model: As asked for.
        texts: What to embed.
        dimensions: Of each vector.
        prompt_tokens: Of all texts.
    """

    model: str
    texts: tuple[str, ...]
    dimensions: int
    prompt_tokens: int


@dataclass(frozen=True)
class EmbeddingRules:
    """What a provider takes in a request for embeddings.

    Attributes:
        most_texts: Most texts in one request.
        members: Members that a request may have; None when any other one is ignored.
        encodings: Values of `encoding_format`; none when the member is ignored.
        takes_dimensions: Whether `dimensions` has an effect; False: it is ignored; None: it is refused.
    """

    most_texts: int = 2048
    members: frozenset[str] | None = None
    encodings: tuple[str, ...] = ("float", "base64")
    takes_dimensions: bool | None = True


def read_embedding(body: Mapping[str, Any], rules: EmbeddingRules, settings: Settings) -> Wanted:
    """A request for embeddings; that its model is the right one was seen before.

    Raises:
        Refused: With all that is wrong with it.
    """
    problems: list[Problem] = []

    def wrong(code: str, message: str, parameter: str) -> None:
        problems.append(Problem(code, message, parameter, body.get(parameter)))

    for name in body:
        if rules.members is not None and name not in rules.members:
            wrong("unknown_parameter", f"Unknown parameter: '{name}'.", name)
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        wrong("invalid_type", "'input' must be a text or a list of texts, none of them empty.", "input")
        texts = []
    if len(texts) > rules.most_texts:
        wrong("array_above_max_length", f"'input' takes at most {rules.most_texts} texts.", "input")
    if rules.encodings and body.get("encoding_format") not in (None, *rules.encodings):
        wrong("invalid_value", f"'encoding_format' must be one of {', '.join(map(repr, rules.encodings))}.", "encoding_format")
    dimensions = _dimensions(body.get("dimensions"), rules, settings, wrong)
    if problems:
        raise Refused(400, *problems)
    counts = [tokens.count(text) for text in texts]
    if max(counts) > settings.context_length:
        message = f"This model's maximum context length is {settings.context_length} tokens. However, your input has {max(counts)} tokens."
        raise refused(400, message, "context_length_exceeded", "input", upstream=True)
    return Wanted(str(body.get("model", settings.embedding_model_id)), tuple(texts), dimensions, sum(counts))


def _dimensions(asked: Any, rules: EmbeddingRules, settings: Settings, wrong: Any) -> int:
    whole = settings.dimensions
    if asked is None or rules.takes_dimensions is False:
        return whole
    if rules.takes_dimensions is None:
        wrong("unsupported_parameter", "The model does not support matryoshka representation, changing 'dimensions' fails.", "dimensions")
    elif not isinstance(asked, int) or isinstance(asked, bool) or not 1 <= asked <= whole:
        wrong("invalid_value", f"'dimensions' must lie between 1 and {whole}.", "dimensions")
    else:
        return asked
    return whole
