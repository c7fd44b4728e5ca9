"""The control plane: who may do what, and what is registered. SQLAlchemy on SQLite (WAL) or PostgreSQL."""

from byok.control.database import ControlPlane, ControlPlaneUnreachable, ControlPlaneVersion, migrate, open_control

__all__ = ["ControlPlane", "ControlPlaneUnreachable", "ControlPlaneVersion", "migrate", "open_control"]
