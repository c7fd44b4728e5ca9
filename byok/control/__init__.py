"""The control plane: who may do what, and what is registered. SQLAlchemy on SQLite (WAL) or PostgreSQL."""

from byok.control.database import ControlPlane, open_control

__all__ = ["ControlPlane", "open_control"]
