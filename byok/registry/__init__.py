"""Models: register, look up, probe, disable; their sealed keys."""

from byok.registry.models import Model, RegisterRequest
from byok.registry.registry import ModelExists, ModelIsDisabled, ModelNotFound, Registry, SecretGone

__all__ = ["Model", "ModelExists", "ModelIsDisabled", "ModelNotFound", "RegisterRequest", "Registry", "SecretGone"]
