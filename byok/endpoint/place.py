"""Where a reply came from, as far as reading it takes that."""

from __future__ import annotations

from dataclasses import dataclass

from byok.endpoint.policy import BaseUrl
from byok.endpoint.profiles import PLAIN, Profile
from byok.endpoint.wire import Redactor


@dataclass(frozen=True)
class Place:
    """One route of one endpoint, and the model that was asked there.

    Attributes:
        base: The endpoint.
        remote_id: The model.
        redact: Takes the endpoint's secrets out of texts.
        profile: How its provider differs from the plain protocol.
        route: Path after the base URL.
    """

    base: BaseUrl
    remote_id: str
    redact: Redactor
    profile: Profile = PLAIN
    route: str = "/chat/completions"

    @property
    def what(self) -> str:
        """What the route is for, in a word."""
        return "embeddings" if "embed" in self.route else "models" if "models" in self.route else "chat"
