"""How the registry refuses."""

from __future__ import annotations

from byok.errors import InputError, NotFound, OutsideError


class ModelExists(InputError):
    """The key is taken by a model of this organisation."""

    code = "model_exists"


class ModelNotFound(NotFound):
    """No model of this organisation has the key."""

    code = "model_not_registered"


class ModelIsDisabled(InputError):
    """The model is disabled: its secret is gone."""

    code = "model_disabled"


class SecretGone(OutsideError):
    """The sealed key of a model is no longer stored."""

    code = "secret_gone"


class KeyNeeded(InputError):
    """The base URL changes, and a stored key is never sent to another address than it was given for."""

    code = "key_needed"


class SameKey(InputError):
    """The new key is the old one."""

    code = "same_key"


class BadGrace(InputError):
    """A grace that is out of range."""

    code = "bad_grace"


class BadSealedKey(InputError):
    """A text that is no sealed key, or one for something else."""

    code = "bad_sealed_key"


class ModelChanged(InputError):
    """Somebody else changed the model meanwhile."""

    code = "model_changed"


class RewrapIncomplete(OutsideError):
    """Some keys could not be sealed anew; the old version of the organisation's key stays in force."""

    code = "rewrap_incomplete"


class RotationUnderWay(InputError):
    """The organisation's key is being rotated."""

    code = "rotation_under_way"


class MigrationUnderWay(InputError):
    """The keys are being moved to another store."""

    code = "migration_under_way"


class MigrationIncomplete(OutsideError):
    """Some keys could not be moved; all keys stay where they were."""

    code = "migration_incomplete"
