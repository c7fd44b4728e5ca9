"""Registering and rotating by a flow run: whoever starts it has no authority; the grant that it carries has."""

from __future__ import annotations

from datetime import timedelta

from byok.access import Actor, Grants
from byok.endpoint import EgressPolicy
from byok.registry.models import Model, RegisterRequest
from byok.registry.registry import Registry
from byok.registry.sealed import SealedKey
from byok.registry.versions import GRACE


class FrontDoor:
    """Lets flow runs in that carry a grant.

    Args:
        registry: The models.
        grants: What takes the grants.
    """

    def __init__(self, registry: Registry, grants: Grants) -> None:
        self._registry, self._grants = registry, grants

    async def register(self, bearer: Actor, request: RegisterRequest, sealed_key: str | None, grant: str | None) -> Model:
        """Register a model on behalf of the grant's maker.

        Args:
            bearer: The worker's member.
            request: The model.
            sealed_key: Text of `byok key seal`; None for an endpoint that needs no key.
            grant: Text of `byok grant register`.

        Raises:
            GrantRefused: There is no grant for this; recorded. A public model, whose tokens the platform pays, takes an admin in person.
            BadSealedKey: The key was sealed for something else; the grant is not used up.
            ByokError: See `Registry.register_sealed`; the grant is used up.
        """
        origin = EgressPolicy.from_environment().check_base_url(request.base_url).origin
        if request.public:
            raise self._grants.refuse(bearer, "no grant allows a public model", "register", request.key, origin)
        self._grants.look(bearer, grant, "register", request.key, origin)
        sealed = SealedKey.parse(sealed_key) if sealed_key else None
        if sealed is not None:
            self._registry.check_sealed(bearer, sealed, origin=origin)
        maker = self._grants.take(bearer, grant, "register", request.key, origin)
        return await self._registry.register_sealed(maker, request, sealed)

    async def rotate(self, bearer: Actor, model_key: str, sealed_key: str, grant: str | None, *, grace: timedelta = GRACE) -> Model:
        """Rotate a model's key on behalf of the grant's maker.

        Raises:
            GrantRefused, BadSealedKey, ModelNotFound, ByokError: See `register`.
        """
        model = self._registry.get(bearer, model_key)
        if model.public:
            raise self._grants.refuse(bearer, "no grant allows a public model", "rotate", model.key, model.origin)
        self._grants.look(bearer, grant, "rotate", model.key, model.origin)
        sealed = SealedKey.parse(sealed_key)
        self._registry.check_sealed(bearer, sealed, origin=model.origin, model=model)
        maker = self._grants.take(bearer, grant, "rotate", model.key, model.origin)
        return await self._registry.rotate_sealed(maker, model_key, sealed, grace=grace)
