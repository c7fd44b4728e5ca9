"""Models and vectors in the shapes of the OpenAI API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from byok.sandbox.embedding import as_base64
from byok.sandbox.settings import Settings


def served(settings: Settings) -> list[tuple[str, bool]]:
    """The models of the sandbox: their ids, and whether they make embeddings."""
    embeds = settings.can.state("embeddings") == "on"
    return [(settings.model_id, False), *([(settings.embedding_model_id, True)] if embeds else [])]


class Catalogue:
    """How a provider lists its models and tells vectors."""

    def models(self, settings: Settings, request: Request) -> Any:
        """The list of models."""
        return {"object": "list", "data": [self.model(settings, model, embeds=embeds) for model, embeds in served(settings)]}

    def model(self, settings: Settings, model_id: str, *, embeds: bool) -> dict[str, Any]:
        """One model of the list."""
        return {"id": model_id, "object": "model", "created": 0, "owned_by": "sandbox"}

    def embeddings(self, model: str, vectors: Sequence[list[float]], prompt_tokens: int, body: Mapping[str, Any]) -> dict[str, Any]:
        """An answer with vectors."""
        coded = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": number, "embedding": as_base64(vector) if coded else vector}
            for number, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
        return {"object": "list", "model": model, "data": data, "usage": usage}

    def embedding_headers(self) -> dict[str, str]:
        """Of an answer with vectors."""
        return {"x-request-id": "sandbox-embedded"}
