"""The audit log: who did what, and who was refused, in a chain that shows every later change.

Each entry's MAC covers the entry and the MAC of the one before it, under a key that is kept outside the data (RFC 2104,
HMAC-SHA256). So whoever can write the database alone can neither change, insert, reorder nor remove an entry unseen. A chain
cannot tell by itself that its tail was cut off: the head that this machine saw last is kept in a file of its own beside the keys.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Connection, Row, select
from sqlalchemy.exc import SQLAlchemyError

from byok.access.heads import Head, Heads, HeadsUnreadable
from byok.clock import iso, utcnow
from byok.control import ControlPlane
from byok.control.tables import audit
from byok.ids import natural_id

if TYPE_CHECKING:
    from byok.access.scopes import Actor

_FIRST = "0" * 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AuditEntry:
    """One entry; see the table `audit`."""

    chain: str
    seq: int
    at: datetime
    member_id: str | None
    actor: str
    action: str
    target: str
    outcome: str
    detail: str
    previous: str
    mac: str

    @classmethod
    def of(cls, row: Row[Any]) -> AuditEntry:
        """The entry of a row."""
        return cls(**{name: getattr(row, name) for name in cls.__dataclass_fields__})

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON shape of an entry."""
        told = asdict(self) | {"detail": orjson.loads(self.detail)}
        return {name: told[name] for name in ("seq", "at", "actor", "action", "target", "outcome", "detail", "member_id", "mac")}


@dataclass(frozen=True)
class Verified:
    """What verifying a chain found.

    Attributes:
        chain: Which one.
        entries: How many entries are sound, from the first on.
        bad_seq: Number of the first entry that is not; None when all are.
        reason: What is wrong with it.
    """

    chain: str
    entries: int
    bad_seq: int | None = None
    reason: str | None = None


def has_entries(control: ControlPlane, chain: str) -> bool:
    """Whether anything has been recorded in a chain yet."""
    with control.read() as connection:
        return connection.execute(select(audit.c.seq).where(audit.c.chain == chain).limit(1)).first() is not None


class AuditLog:
    """Writes and verifies the chains of an installation.

    Args:
        control: Where the entries are.
        key: What they are signed with.
        heads: The file with the last heads.
    """

    def __init__(self, control: ControlPlane, key: bytes, heads: Path) -> None:
        self._control, self._key, self._heads = control, key, Heads(heads)
        self.installation = natural_id("installation", hmac.new(key, b"chain", sha256).hexdigest())
        """The chain of what belongs to no organisation, such as an unknown token: one for each home, since each has a key of its own."""

    def __repr__(self) -> str:
        return "AuditLog()"

    @contextmanager
    def act(self, actor: Actor, action: str, target: str, **detail: Any) -> Iterator[Connection]:
        """A write transaction whose entry commits with it, or not at all.

        Args:
            actor: Who acts.
            action: What is done, such as `model.rotate`.
            target: To what.
            **detail: Plain values. Never a secret.
        """
        with self._control.write(queue=actor.org_id) as connection:
            yield connection
            head = self._append(connection, actor.org_id, actor.member_id, actor.email, action, target, "done", detail)
        self._remember(actor.org_id, head)

    def record(
        self,
        outcome: str,
        action: str,
        target: str,
        *,
        chain: str | None = None,
        member_id: str | None = None,
        actor: str = "unknown",
        **detail: Any,
    ) -> None:
        """An entry of its own: a refusal, or a failure that somebody should see.

        Args:
            outcome: done, refused or failed.
            action: What was tried.
            target: On what.
            chain: The organisation, if one is known; else it goes to the installation's own chain.
            member_id: Who, if known.
            actor: Who, in words.
            **detail: Plain values. Never a secret.
        """
        chain = chain or self.installation
        with self._control.write(queue=chain) as connection:
            head = self._append(connection, chain, member_id, actor, action, target, outcome, detail)
        self._remember(chain, head)

    def by(self, actor: Actor, outcome: str, action: str, target: str, **detail: Any) -> None:
        """An entry of its own about what a member did or tried (see `record`)."""
        self.record(outcome, action, target, chain=actor.org_id, member_id=actor.member_id, actor=actor.email, **detail)

    def entries(self, chain: str, *, limit: int | None = None) -> list[AuditEntry]:
        """The entries of a chain, the newest first."""
        with self._control.read() as connection:
            rows = connection.execute(select(audit).where(audit.c.chain == chain).order_by(audit.c.seq.desc()).limit(limit)).all()
        return [AuditEntry.of(row) for row in rows]

    def verify(self, chain: str) -> Verified:
        """Check a chain from its first entry on, and against the head that was seen last; name the first bad entry."""
        previous, sound = _FIRST, 0
        anchor = self._heads.read().get(chain)
        with self._control.read() as connection:
            for row in connection.execute(select(audit).where(audit.c.chain == chain).order_by(audit.c.seq)):
                entry = AuditEntry.of(row)
                if entry.seq != sound + 1:
                    return Verified(chain, sound, sound + 1, "missing")
                if not hmac.compare_digest(entry.mac, self._mac(entry)):
                    return Verified(chain, sound, entry.seq, "changed, or not written by byok")
                if entry.previous != previous:
                    return Verified(chain, sound, entry.seq, "does not follow the entry before it")
                previous, sound = entry.mac, entry.seq
                if anchor and anchor[0] == sound and anchor[1] != entry.mac:
                    return Verified(chain, sound - 1, sound, "not the entry that was seen here before")
        if anchor and anchor[0] > sound:
            return Verified(chain, sound, sound + 1, f"missing: {anchor[0]} entries were seen here before")
        return Verified(chain, sound)

    def _append(
        self,
        connection: Connection,
        chain: str,
        member_id: str | None,
        actor: str,
        action: str,
        target: str,
        outcome: str,
        detail: Mapping[str, Any],
    ) -> tuple[int, str]:
        last = connection.execute(
            select(audit.c.seq, audit.c.mac).where(audit.c.chain == chain).order_by(audit.c.seq.desc()).limit(1)
        ).first()
        entry = AuditEntry(
            chain=chain,
            seq=last.seq + 1 if last else 1,
            at=utcnow(),
            member_id=member_id,
            actor=actor[:254],
            action=action,
            target=target[:500],
            outcome=outcome,
            detail=orjson.dumps(detail, option=orjson.OPT_SORT_KEYS).decode(),
            previous=last.mac if last else _FIRST,
            mac="",
        )
        mac = self._mac(entry)
        connection.execute(audit.insert().values(**(asdict(entry) | {"mac": mac})))
        return entry.seq, mac

    def _mac(self, entry: AuditEntry) -> str:
        told = [
            *(entry.chain, entry.seq, iso(entry.at), entry.member_id, entry.actor),
            *(entry.action, entry.target, entry.outcome, entry.detail, entry.previous),
        ]
        return hmac.new(self._key, orjson.dumps(told), sha256).hexdigest()

    def _holds(self, chain: str, head: Head) -> bool:
        with self._control.read() as connection:
            found = connection.execute(select(audit.c.mac).where(audit.c.chain == chain, audit.c.seq == head[0])).scalar()
        return found == head[1]

    def _remember(self, chain: str, head: Head) -> None:
        try:
            self._heads.keep(chain, head, lambda seen: self._holds(chain, seen))
        except (OSError, HeadsUnreadable, SQLAlchemyError) as error:
            # The act is committed, and must not look as if it had failed; `verify` says that the file is damaged.
            _log.warning("the head of the audit log was not kept in %s: %s", self._heads.path, type(error).__name__)
