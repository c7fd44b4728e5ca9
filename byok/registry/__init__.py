"""Models: register, look up, probe, change, rotate, disable; their sealed keys, and how these change stores and versions."""

from byok.registry.errors import (
    BadGrace,
    BadSealedKey,
    KeyNeeded,
    MigrationIncomplete,
    MigrationUnderWay,
    ModelChanged,
    ModelExists,
    ModelIsDisabled,
    ModelNotFound,
    RewrapIncomplete,
    RotationUnderWay,
    SameKey,
    SecretGone,
)
from byok.registry.front_door import FrontDoor
from byok.registry.health import Checked, Health
from byok.registry.migrate import Migrated, Migration
from byok.registry.models import Model, ModelChanges, RegisterRequest
from byok.registry.registry import Registry
from byok.registry.rewrap import Rewrapped, Rewrapper
from byok.registry.sealed import SealedKey
from byok.registry.versions import GRACE, KeyVersions, stored_secrets

__all__ = [
    "GRACE",
    "BadGrace",
    "BadSealedKey",
    "Checked",
    "FrontDoor",
    "Health",
    "KeyNeeded",
    "KeyVersions",
    "Migrated",
    "Migration",
    "MigrationIncomplete",
    "MigrationUnderWay",
    "Model",
    "ModelChanged",
    "ModelChanges",
    "ModelExists",
    "ModelIsDisabled",
    "ModelNotFound",
    "RegisterRequest",
    "Registry",
    "RewrapIncomplete",
    "Rewrapped",
    "Rewrapper",
    "RotationUnderWay",
    "SameKey",
    "SealedKey",
    "SecretGone",
    "stored_secrets",
]
