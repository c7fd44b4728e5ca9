"""Two organisations on one control plane, with members in every state, and a look at all that is stored."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import update

from byok.access import Issued, authenticate
from byok.app import Services, open_services
from byok.cli.init import initialise
from byok.clock import utcnow
from byok.control.tables import token
from byok.datasets import Mapping
from byok.home import Home
from byok.ids import new_id
from byok.ledger import ship
from byok.registry import RegisterRequest
from byok.runs import EvaluationRequest, answer_shard, bill_run, embed_shard, finish_run, judge_shard, probe_models, start_run
from byok.sandbox import Sandbox

SIMILARITY = "embedding_similarity:model=e"
QUESTIONS = [(f"What is {number} times 9?", str(9 * number)) for number in range(4)]
ACME_WORDS = ("Nightjar", "times 9", "Weigh the answer gently", "editor@acme.example", "sk-acme")
"""Words that only acme's objects hold: name of its model, rows of its data set, rubric of its judge, a member, the mask of its key."""

_ROLES = {"editor": "editor", "viewer": "viewer", "robot": "service", "bystander": "viewer"}
_REFUSED = ("suspended", "expired", "revoked")


@dataclass(frozen=True)
class Organisations:
    """Homes of acme and rival under one folder, the control plane in acme's.

    Attributes:
        root: The folder.
        tokens: Tokens of acme's members by the first part of their address, and of rival's owner as `rival`.
        token_ids: Public parts of them.
        run_id: A complete run of acme.
        grant_id: A grant of acme's editor that is not used.
        top_up_id: A top-up of acme of which nothing is used.
    """

    root: Path
    tokens: dict[str, str]
    token_ids: dict[str, str]
    run_id: str
    grant_id: str
    top_up_id: str

    @property
    def acme(self) -> Home:
        return Home(self.root / "acme")

    @property
    def rival(self) -> Home:
        return Home(self.root / "rival")

    @property
    def database(self) -> Path:
        return self.acme.data / "control.db"

    @property
    def environment(self) -> dict[str, str]:
        """What makes acme's the home of a process, without a token."""
        return {"BYOK_HOME": str(self.acme.root), "BYOK_DATABASE_URL": f"sqlite:///{self.database}"}

    def copy(self, root: Path) -> Organisations:
        """The same in another folder."""
        shutil.copytree(self.root, root)
        return replace(self, root=root)

    @contextmanager
    def open(self, who: str = "owner", home: Home | None = None) -> Iterator[Services]:
        """The services of a home, by default acme's, as one of its members."""
        with pytest.MonkeyPatch.context() as patched:
            for name, value in (self.environment | {"BYOK_TOKEN": self.tokens[who]}).items():
                patched.setenv(name, value)
            services = open_services(home or self.acme)
            try:
                yield services
            finally:
                services.control.close()

    def stored(self) -> dict[str, Any]:
        """All rows but those of the audit log, and a digest of every file of both homes, but for its heads and the logs of processes."""
        found: dict[str, Any] = {f"table {name}": rows for name, rows in self.rows().items() if name != "audit"}
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and not path.name.startswith(("control.db", "audit-heads", "ledger-heads")) and path.parent.name != "logs":
                facts = path.stat()
                # The warehouses are large: every write shows in these facts as well.
                small = facts.st_size < 500_000
                found[str(path.relative_to(self.root))] = (
                    sha256(path.read_bytes()).hexdigest() if small else (facts.st_size, facts.st_mtime_ns, facts.st_ino)
                )
        return found

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """All rows of the control plane; not when a token was last used, which every use changes."""
        with _connect(self.database) as connection:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            tables = {name: [dict(row) for row in connection.execute(f'SELECT * FROM "{name}"')] for name in names}
        for row in tables["token"]:
            del row["last_used_at"]
        return tables

    def rows_of(self, slug: str) -> dict[str, list[dict[str, Any]]]:
        """The rows that belong to one organisation, its audit chain included."""
        tables = self.rows()
        org = next(row["id"] for row in tables["org"] if row["slug"] == slug)
        owned = {org} | {row["id"] for name in ("member", "dataset", "judge", "model") for row in tables[name] if row["org_id"] == org}
        owner = {"token": "member_id", "dataset_version": "dataset_id", "judge_version": "judge_id", "audit": "chain"}
        return {
            name: [row for row in rows if row.get(owner.get(name, "org_id")) in owned]
            for name, rows in tables.items()
            if name not in ("org", "alembic_version")
        }

    def audited(self) -> list[dict[str, Any]]:
        """All audit entries in the order in which they were written."""
        with _connect(self.database) as connection:
            found = [dict(row) for row in connection.execute("SELECT rowid, * FROM audit ORDER BY rowid")]
        return [entry | {"detail": json.loads(entry["detail"])} for entry in found]


@contextmanager
def _connect(database: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(database)
    connection.row_factory = sqlite3.Row
    try:
        yield connection
    finally:
        connection.close()


def make_organisations(root: Path, server: Sandbox, key: str) -> Organisations:
    """Make both, with a model, a data set, a judge and a complete run of acme; the sandbox must take the key."""
    acme, rival = Home(root / "acme"), Home(root / "rival")
    tokens: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)
        patched.setenv("BYOK_DATABASE_URL", acme.database_url)
        for name, home in (("owner", acme), ("rival", rival)):
            initialise(home, home.root.name, f"owner@{home.root.name}.example")
            tokens[name] = home.token_file.read_text().strip()
        tokens["worker"] = acme.worker_token_file.read_text().strip()
        services = open_services(acme)
        try:
            issued = _add_members(services)
            run_id = asyncio.run(_work(services, server, key, root))
            editor = authenticate(services.control, issued["editor"].text, services.audit)
            model = services.registry.get(editor, "m")
            grant_id = services.grants.make(editor, "rotate", "m", model.origin, lifetime=timedelta(days=1)).id
            top_up_id = services.ledger.top_up(services.actor, 1_000_000, operation="first").id
            services.ledger.hold(services.actor, "first", 10)
            ship(services.control, services.warehouse, services.actor.org_id)
            services.warehouse.drain()
        finally:
            services.control.close()
    for home in (acme, rival):
        home.token_file.unlink()
    tokens |= {who: made.text for who, made in issued.items()}
    return Organisations(root, tokens, {who: text.split("_")[1] for who, text in tokens.items()}, run_id, grant_id, top_up_id)


def _add_members(services: Services) -> dict[str, Issued]:
    # Whoever is refused for the state of their token is an admin otherwise, so that nothing else can be the reason.
    roles = _ROLES | dict.fromkeys(_REFUSED, "admin")
    administration, actor = services.administration, services.actor
    made = {who: administration.add_member(actor, f"{who}@acme.example", role) for who, role in roles.items()}
    administration.set_active(actor, "suspended@acme.example", active=False)
    administration.revoke(actor, made["revoked"].id)
    with services.control.write() as connection:
        past = utcnow() - timedelta(seconds=1)
        connection.execute(update(token).where(token.c.id == made["expired"].id).values(expires_at=past))
    return made


async def _work(services: Services, server: Sandbox, key: str, root: Path) -> str:
    actor = services.actor
    request = RegisterRequest(key="m", name="Nightjar", base_url=server.base_url, remote_id=server.model_id)
    await services.registry.register(actor, request, SecretStr(key))
    embedder = request.model_copy(update={"key": "e", "remote_id": server.embedding_model_id, "tags": ["embeddings"]})
    await services.registry.register(actor, embedder, SecretStr(key))
    (root / "usage.csv").write_text("date,model,requests\n2020-01-01,acme/remote,0\n")
    path = root / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in QUESTIONS))
    services.datasets.add(actor, "d", path, Mapping())
    services.judges.create(actor, "j", "m", "binary", "Weigh the answer gently: {{output}}")
    graders = ["numeric", SIMILARITY]
    plan = start_run(services, EvaluationRequest(model="m", dataset="d", graders=graders, judges=["j"]), new_id())
    await probe_models(services, plan.run_id)
    await answer_shard(services, plan.run_id, 0)
    await embed_shard(services, plan.run_id, SIMILARITY, 0)
    await judge_shard(services, plan.run_id, "j", 0)
    bill_run(services, plan.run_id)
    finished = finish_run(services, plan.run_id)
    assert finished.status == "completed"
    return plan.run_id
