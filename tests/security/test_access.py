"""Nobody passes any entry point without a token that is valid now, of the right organisation, with the scope that it takes."""

import ast
import asyncio
import hashlib
import inspect
import io
import itertools
import json
import os
import re
import signal
import sqlite3
import string
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prefect import Flow, Task
from sqlalchemy import event, select, update

import byok
import flows
import tasks
from byok.access import (
    MODELS_READ,
    ROLES,
    SCOPES,
    BadLifetime,
    BadOrganisation,
    BadRole,
    GrantRefused,
    LastAdmin,
    MemberExists,
    MemberNotFound,
    ScopeMissing,
    TokenFileExposed,
    TokenMissing,
    TokenNotFound,
    TokenRejected,
    actor_from_environment,
    authenticate,
    identity,
)
from byok.access.tokens import _checksum, digest, new_token, public_id
from byok.app import open_services
from byok.cli.main import run
from byok.clock import utcnow
from byok.control.tables import metadata, token
from byok.engine.control import Control
from byok.errors import NotPermitted
from byok.registry import RegisterRequest
from byok.runs import EvaluationRequest
from byok.sandbox import Sandbox
from byok_testing.entry_points import ACTS, COMMANDS, NO_SCOPE_NEEDED, NO_TOKEN_NEEDED, acting, command_names, modules
from byok_testing.leaks import hits
from byok_testing.organisations import ACME_WORDS, QUESTIONS, SIMILARITY, make_organisations
from flows.approval import registered
from tasks.bill import bill
from tasks.credit import credit
from tasks.embed import embed_shard
from tasks.evaluate import evaluate_shard
from tasks.judge import judge_shard
from tasks.probe import probe
from tasks.probing import check_model, models_to_check
from tasks.register import find, register
from tasks.registration import register_by_grant, rotate_by_grant
from tasks.report import report
from tasks.rewrap import rewrap

KEY = "sk-acme-5d1f0c7e9b3a48d2a6c4e8f7"
OTHER_KEY = "sk-next-77e2b9d4c1f04a36bb58d0aa"
PROJECT = Path(byok.__file__).parents[1]


PRIVILEGED = {"member", "token", "model", "price", "key", "grant", "vault"}
"""Groups of commands that change who may do what, models, or keys: each act of theirs has an entry in the audit log."""

AUDITED = {("bill", one) for one in ("close", "topup", "reverse", "refund", "settings")}
"""Other commands that have one."""


@pytest.fixture(scope="module")
def server():
    # It takes any key: which key is sent is the matter of other tests.
    with Sandbox(QUESTIONS, model_id="acme/remote") as started:
        yield started


@pytest.fixture(scope="module")
def made(server, tmp_path_factory):
    return make_organisations(tmp_path_factory.mktemp("organisations") / "both", server, KEY)


@pytest.fixture
def both(made, server, tmp_path, monkeypatch):
    """A copy of the two organisations; the environment names acme's home, and holds no token."""
    for name in [name for name in os.environ if name.startswith("BYOK_")]:
        monkeypatch.delenv(name)
    copied = made.copy(tmp_path / "both")
    for name, value in copied.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BYOK_ENDPOINT_ALLOW", server.host_port)
    monkeypatch.setenv("PROVIDER_KEY", OTHER_KEY)
    monkeypatch.chdir(tmp_path)
    return copied


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command in this process with a token, or none; gives its exit code, what it printed, and the error's code."""

    def run_command(words, text, *options):
        if text is None:
            monkeypatch.delenv("BYOK_TOKEN", raising=False)
        else:
            monkeypatch.setenv("BYOK_TOKEN", text)
        code = run([*words, *options])
        shown = capsys.readouterr()
        error = json.loads(shown.out).get("error") if "--json" in options else None
        return code, shown.out + shown.err, error

    return run_command


@pytest.fixture
def words(both, server, tmp_path):
    """The words of a command, filled in."""
    query = tmp_path / "query.sql"
    query.write_text("SELECT * FROM v1.samples")
    return lambda command: command.words_of(both, url=server.base_url, remote=server.model_id, query=str(query))


class Terminal(io.StringIO):
    """Standard input of somebody who sits there."""

    def isatty(self):
        return True


def bad_tokens(both):
    """Tokens that nobody may act with, the error that each meets, and the reason that the audit log tells."""
    return [
        (None, "token_missing", "missing"),
        ("byok_nothing", "token_rejected", "malformed"),
        (new_token().text, "token_rejected", "unknown"),
        (both.tokens["rival"], "token_rejected", "unknown"),
        (both.tokens["expired"], "token_rejected", "expired"),
        (both.tokens["revoked"], "token_rejected", "revoked"),
        (both.tokens["suspended"], "token_rejected", "suspended"),
    ]


def check_audited(both, number, action, reason, who):
    """Since there were so many entries, one has come that tells of the refusal."""
    (last,) = [entry for entry in both.audited()[number:] if entry["outcome"] != "done"]
    acme = both.rows_of("acme")["member"][0]["org_id"]
    assert (last["outcome"], last["detail"]["reason"], last["actor"]) == ("refused", reason, who)
    assert action is None or last["action"] == action
    # What is not known to be of the organisation does not get into its chain.
    assert (last["chain"] == acme) == (who != "unknown")


# --- 32: commands


def test_32_every_command_is_listed_with_what_it_takes():
    names = command_names()
    listed = {name for name in names if any(command.is_of(name) for command in COMMANDS)}
    assert listed | NO_TOKEN_NEEDED.keys() == set(names) and not listed & NO_TOKEN_NEEDED.keys()
    assert all(any(command.is_of(name) for name in names) for command in COMMANDS)
    assert len(names) > 40 and all(NO_TOKEN_NEEDED.values())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.words)
def test_32_a_command_lets_the_right_member_pass_and_nobody_else(command, both, words, call, monkeypatch, request, tmp_path):
    asked, before = words(command), both.stored()
    for text, error, reason in bad_tokens(both):
        number = len(both.audited())
        code, shown, told = call(asked, text, "--json")
        assert (code, told["code"]) == (3, error) and told["hint"]
        assert not [word for word in (*ACME_WORDS, text) if word and word in shown]
        known = reason in ("expired", "revoked", "suspended")
        check_audited(both, number, "token.use", reason, f"{reason}@acme.example" if known else "unknown")
    for who, role in (("viewer", "viewer"), ("editor", "editor"), ("robot", "service")):
        if not command.scopes <= ROLES[role] and not (command.service_too and role == "service"):
            refuse_scope(command, asked, both, call, who, command.scopes)
    for scope in command.scopes:
        with monkeypatch.context() as patched:
            # A role that holds all the others: none of them makes up for it.
            patched.setitem(ROLES, "viewer", SCOPES - {scope})
            refuse_scope(command, asked, both, call, "viewer", {scope})
    assert both.stored() == before and not (tmp_path / "page.html").exists()
    if not command.served:
        pass_right(command, asked, both, call, monkeypatch, request)


def refuse_scope(command, asked, both, call, who, scopes):
    number = len(both.audited())
    code, shown, told = call(asked, both.tokens[who], "--json")
    assert (code, told["code"]) == (3, "scope_missing") and told["fields"]["scope"] in scopes
    assert not [word for word in ACME_WORDS if word in shown.replace("editor@acme.example (", "")]
    check_audited(both, number, None, "scope_missing", f"{who}@acme.example")


def pass_right(command, asked, both, call, monkeypatch, request):
    """The weakest real role that holds what the command takes does it."""
    held = {"viewer": "viewer", "editor": "editor", "robot": "service", "owner": "admin"}
    who = next(who for who, role in held.items() if command.scopes <= ROLES[role])
    actor = f"{who}@acme.example"
    group, verb, number = *command.words.split()[:2], len(both.audited())
    if command.words.startswith(("vault setup", "vault migrate")):
        # A server of one's own: the shared one knows another organisation of this name from other tests.
        server, set_up = request.getfixturevalue("new_openbao")(), request.getfixturevalue("set_up")
        monkeypatch.setenv("BYOK_VAULT_ADDR", server.address)
        monkeypatch.setenv("BYOK_VAULT_TOKEN", server.root_token)
        if "migrate" in command.words:
            monkeypatch.delenv("BYOK_VAULT_TOKEN")
            set_up(server, both.acme.vault_credentials, both.rows_of("acme")["member"][0]["org_id"])
    if command.words.startswith(("run pause", "run continue", "run cancel")):
        (folder,) = both.acme.runs.iterdir()
        Control(folder).begin()  # they steer what is under way
    if command.words.startswith("evaluate"):
        # They are asked whether to start, and decline: what a started flow may do is the matter of the tasks below.
        monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
        code, shown, error = call(asked, both.tokens[who])
        assert "Start?" in shown
    else:
        code, shown, error = call(asked, both.tokens[who], "--json")
    assert (code, error) == (0, None), shown
    assert not hits(shown, [KEY, OTHER_KEY])
    done = [entry["action"] for entry in both.audited()[number:] if (entry["outcome"], entry["actor"]) == ("done", actor)]
    audited = group in PRIVILEGED or (group, verb) in AUDITED
    assert bool(done) == (audited and verb not in ("list", "show", "history", "verify", "status"))


@pytest.mark.parametrize("command", [one for one in COMMANDS if not one.served], ids=lambda command: command.words)
def test_32_acme_is_closed_to_the_admin_of_another_organisation_on_the_same_database(command, both, words, call, monkeypatch):
    asked, rows = words(command), both.rows_of("acme")
    files = {name: value for name, value in both.stored().items() if name.startswith("acme/")}
    monkeypatch.setenv("BYOK_HOME", str(both.rival.root))
    code, shown, error = call(asked, both.tokens["rival"], "--json")
    assert (code, error and error["code"]) == ((0, None) if command.from_rival is None else (2, command.from_rival)), shown
    assert not [word for word in ACME_WORDS if word in shown] and both.tokens["bystander"] not in shown
    assert both.rows_of("acme") == rows
    assert {name: value for name, value in both.stored().items() if name.startswith("acme/")} == files


def test_32_what_needs_no_token_changes_nothing_of_an_organisation(both, call):
    before, number = both.stored(), len(both.audited())
    code, shown, _ = call(["init", "--org", "acme", "--owner", "owner@acme.example"], None, "--json")
    assert code == 0 and json.loads(shown)["init"]["token"] is None and not json.loads(shown)["init"]["made"]
    for org, owner in (("acme", "stranger@acme.example"), ("rival", "owner@rival.example"), ("third", "owner@acme.example")):
        code, _, error = call(["init", "--org", org, "--owner", owner], None, "--json")
        assert (code, error["code"]) == (2, "organisation_exists")
    code, shown, _ = call(["doctor"], None, "--json")
    assert code == 1 and not [word for word in ACME_WORDS if word in shown]
    assert both.stored() == before and len(both.audited()) == number


def test_32_commands_in_processes_of_their_own_meet_the_same_check(both):
    def start(text, *words):
        environment = {name: value for name, value in os.environ.items() if name != "BYOK_TOKEN"} | ({"BYOK_TOKEN": text} if text else {})
        done = subprocess.run(
            [sys.executable, "-m", "byok.cli.main", *words], capture_output=True, text=True, env=environment, timeout=120, check=False
        )
        return done.returncode, done.stdout, done.stderr

    code, shown, told = start(both.tokens["revoked"], "model", "list")
    assert (code, shown) == (3, "") and "[token_rejected]" in told and both.tokens["revoked"] not in told
    code, shown, told = start(both.tokens["viewer"], "model", "list", "--json")
    assert code == 0 and "Nightjar" in shown


def test_32_an_admin_alone_can_run_a_vault_on_this_machine(both):
    child = subprocess.Popen(
        [sys.executable, "-m", "byok.cli.main", "vault", "dev", "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"BYOK_TOKEN": both.tokens["owner"]},
    )
    with child:
        text = "".join(itertools.takewhile(lambda line: line != "}\n", child.stdout))
        child.send_signal(signal.SIGTERM)
    assert json.loads(text + "}")["vault"]["address"].startswith("http://127.0.0.1:") and child.returncode == 0
    assert both.audited()[-1]["action"] == "vault.setup"


# --- 32: services


def test_32_every_act_of_a_service_is_listed_with_what_it_takes():
    found = acting()
    assert found == ACTS.keys() | NO_SCOPE_NEEDED.keys() and not ACTS.keys() & NO_SCOPE_NEEDED.keys()
    assert len(found) > 40 and all(NO_SCOPE_NEEDED.values())


@pytest.mark.parametrize("name", ACTS)
def test_32_an_act_takes_exactly_its_scopes_whoever_calls_it(name, both):
    act = ACTS[name]

    def do(services, actor):
        done = act.call(services, actor)
        return asyncio.run(done) if inspect.iscoroutine(done) else done

    with both.open("rival", both.rival) as rival, both.open("editor") as own, both.open() as services:
        person, stranger = replace(own.actor, email="somebody@acme.example"), replace(rival.actor, audit=services.audit)
        before = both.stored()
        for scope in act.scopes:
            number = len(both.audited())
            with pytest.raises(ScopeMissing) as caught:
                do(services, replace(person, scopes=SCOPES - {scope}))
            assert caught.value.fields["scope"] == scope
            check_audited(both, number, None, "scope_missing", "somebody@acme.example")
        assert both.stored() == before
        rows = both.rows_of("acme") | {"audit": None}
        if act.from_rival is not None:
            with pytest.raises(act.from_rival):
                do(services, stranger)
            assert both.stored() == before
        elif not act.own_home:
            shown = repr(do(services, stranger))
            assert not [word for word in ACME_WORDS if word in shown]
        assert both.rows_of("acme") | {"audit": None} == rows
        do(services, replace(person, scopes=act.scopes))


def test_32_an_actor_is_made_from_a_token_or_a_grant_and_nowhere_else():
    makers = set()
    for folder in ("byok", "flows", "tasks", "blocks"):
        for path in (PROJECT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", None)) == "Actor":
                    makers.add(str(path.relative_to(PROJECT)))
    # The third makes the first owner of an organisation that is not there yet.
    assert makers == {"byok/access/identity.py", "byok/access/grants.py", "byok/access/members.py"}


# --- 32: flows and tasks

FLOWS = {
    "flows.evaluation.evaluate": registered,
    "flows.evaluation.resume": find,
    "flows.scaled.evaluate_scaled": registered,
    "flows.scaled.resume_scaled": find,
    "flows.registration.register_model": register_by_grant,
    "flows.registration.rotate_key": rotate_by_grant,
    "flows.maintenance.rotate_transit": rewrap,
    "flows.probing.probe_models": models_to_check,
    "flows.credit.low_credit": credit,
}
"""Each flow, and the task that it begins with (`registered` begins with `register`): no flow opens an installation itself."""

REGISTRATION = RegisterRequest(key="new", name="N", base_url="https://models.example/v1", remote_id="r")

TASKS = {
    "register": (register, lambda run: (EvaluationRequest(model="m", dataset="d", graders=["numeric"]), run)),
    "find": (find, lambda run: (run,)),
    "probe": (probe, lambda run: (run,)),
    "evaluate-shard": (evaluate_shard, lambda run: (run, 0)),
    "embed-shard": (embed_shard, lambda run: (run, SIMILARITY, 0)),
    "judge-shard": (judge_shard, lambda run: (run, "j", 0)),
    "bill": (bill, lambda run: (run,)),
    "report": (report, lambda run: (run,)),
    "register-by-grant": (register_by_grant, lambda run: (REGISTRATION, None, None)),
    "rotate-by-grant": (rotate_by_grant, lambda run: ("m", "byoksealed_x", None, 24)),
    "rewrap": (rewrap, lambda run: (True,)),
    "models-to-check": (models_to_check, lambda run: ([],)),
    "credit": (credit, lambda run: ()),
    "check-model": (check_model, lambda run: ("m", False)),
}


def test_32_every_flow_and_task_is_listed():
    deployed = {one["entrypoint"] for one in yaml.safe_load((PROJECT / "deployments" / "prefect.yaml").read_text())["deployments"]}
    found = {f"{m.__name__}.{one.fn.__name__}": one for m in modules(flows) for one in vars(m).values() if isinstance(one, Flow)}
    named = {name: one for name, one in found.items() if name.startswith(one.fn.__module__)}
    assert deployed == FLOWS.keys() == named.keys()
    for name, first in FLOWS.items():
        assert getattr(first, "fn", first).__name__ in named[name].fn.__code__.co_names
    assert "register" in registered.__code__.co_names
    assert {one.name for m in modules(tasks) for one in vars(m).values() if isinstance(one, Task)} == TASKS.keys()
    for module in modules(flows):
        assert "open_services" not in vars(module)


@pytest.mark.parametrize("name", TASKS)
def test_32_starting_a_flow_confers_nothing_so_each_task_asks_who_the_worker_is(name, both, monkeypatch):
    task, arguments = TASKS[name]

    def do(text):
        if text is None:
            monkeypatch.delenv("BYOK_TOKEN", raising=False)
        else:
            monkeypatch.setenv("BYOK_TOKEN", text)
        done = task.fn(*arguments(both.run_id))
        return asyncio.run(done) if inspect.iscoroutine(done) else done

    before = both.stored()
    for text, error, reason in bad_tokens(both):
        number = len(both.audited())
        with pytest.raises(TokenMissing if error == "token_missing" else TokenRejected):
            do(text)
        known = reason in ("expired", "revoked", "suspended")
        check_audited(both, number, "token.use", reason, f"{reason}@acme.example" if known else "unknown")
    number = len(both.audited())
    by_grant = name.endswith("by-grant")
    with pytest.raises(GrantRefused if by_grant else ScopeMissing):
        do(both.tokens["viewer"])
    check_audited(both, number, None, "there is none" if by_grant else "scope_missing", "viewer@acme.example")
    if by_grant:
        # Not even an admin registers or rotates by a flow without a grant.
        with pytest.raises(GrantRefused):
            do(both.tokens["owner"])
    assert both.stored() == before
    # `report` goes on to show the run in Prefect's UI; the domain function that it calls is among the acts above.
    if not by_grant and name != "report":
        do(both.tokens["worker"])


# --- 33: tokens


def refused_everywhere(services, text):
    with pytest.raises(TokenRejected) as caught:
        authenticate(services.control, text, services.audit, organisation="acme")
    told = caught.value
    shown = repr((str(told), told.hint, told.fields))
    assert len(text) < 20 or text not in shown
    return told.message


def _resealed(body):
    """A text with the checksum that fits it."""
    return body + _checksum(body)


def test_33_what_is_not_quite_a_token_is_refused(services):
    text = services.home.token_file.read_text().strip()
    public, body = text.split("_")[1], text[:-6]
    arabic = text[:-1] + "\u0663"
    for wrong in (
        *("", " ", "byok", "byok_", "byok__", text[:-1], text[1:], text + "0", text.lower(), text.swapcase(), text * 2),
        *(text.replace("byok_", prefix) for prefix in ("byok-", "BYOK_", "xyok_", "byokk_", "")),
        *(text + end for end in ("\n", "\r\n", " ", "\t", "\0", "'", '"', "' OR '1'='1", "%00", "\u200b")),
        *(start + text for start in ("\n", " ", "\0", "Bearer ", "'")),
        *(text.replace("_", f"_{mark}", 1) for mark in ("'", '"', "%", "_", "\0", "\n", "`", "; DROP TABLE token; --")),
        *(body + "000000", body + text[-6:][::-1], arabic, text.translate({48 + n: 0xFF10 + n for n in range(10)})),
        *("byok_" + "a" * 1_000_000, text + "a" * 1_000_000, "a" * 1_000_000, "_" * 1_000_000),
        *("\udcff" + text, text[:20] + "\udcff" + text[21:]),
    ):
        assert wrong != text and public_id(wrong) is None
        assert refused_everywhere(services, wrong) == "the token is mistyped or cut"
    # Well formed, and nobody's.
    for wrong in (_resealed(f"byok_{public}_" + "0" * 43), _resealed(f"byok_{'0' * 12}_{body[-43:]}"), new_token().text):
        assert public_id(wrong) is not None
        assert refused_everywhere(services, wrong) == "the token is not valid"
    refused = [entry for entry in services.audit.entries(services.audit.installation) if entry.outcome == "refused"]
    assert {entry.detail for entry in refused} == {'{"reason":"malformed"}', '{"reason":"unknown"}'}
    assert not hits(repr(refused), [text, body[-43:]])
    assert authenticate(services.control, text, services.audit, organisation="acme").role == "admin"


@given(text=st.one_of(st.text(), st.text(string.ascii_letters + string.digits + "_'\"\0\n", min_size=60, max_size=75).map("byok_".__add__)))
def test_33_no_other_text_is_read_as_a_token(text):
    assert public_id(text) is None


def test_33_the_stored_digest_is_no_credential_in_any_dress(services):
    with services.control.read() as connection:
        row = connection.execute(token.select()).first()
    for wrong in (row.digest, f"byok_{row.id}_{row.digest}", row.digest.upper(), row.id, bytes.fromhex(row.digest).decode("latin-1")):
        assert public_id(wrong) is None
        refused_everywhere(services, wrong)
    for start in range(len(row.digest) - 42):
        refused_everywhere(services, _resealed(f"byok_{row.id}_{row.digest[start : start + 43]}"))


def test_33_a_token_file_that_is_damaged_or_exposed_is_refused_and_recorded(services, monkeypatch):
    path = services.home.token_file
    whole = path.read_bytes()
    for damaged in (b"", b"\0" * 68, whole[:-9], whole.replace(b"_", b"_\0", 1), whole + whole, b"\xff\xfe" + whole, b"a" * 1_000_000):
        path.write_bytes(damaged)
        number = len(services.audit.entries(services.audit.installation))
        with pytest.raises((TokenRejected, TokenMissing)):
            open_services()
        assert len(services.audit.entries(services.audit.installation)) == number + 1
    path.write_bytes(whole)
    path.chmod(0o604)
    with pytest.raises(TokenFileExposed):
        open_services()
    last = services.audit.entries(services.audit.installation)[0]
    assert (last.action, last.outcome, last.detail) == ("token.use", "refused", '{"reason":"exposed"}')
    # An empty variable does not fall back to the file.
    path.chmod(0o600)
    monkeypatch.setenv("BYOK_TOKEN", "")
    with pytest.raises(TokenRejected):
        actor_from_environment(services.control, services.home, services.audit)


def test_33_an_unknown_id_takes_the_same_path_as_a_wrong_secret(services, monkeypatch):
    public = services.home.token_file.read_text().split("_")[1]
    compared, asked = [], []

    def compare(one, other):
        compared.append((len(one), len(other)))
        return one == other

    event.listen(services.control.engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    monkeypatch.setattr(identity.hmac, "compare_digest", compare)
    seen = []
    for wrong in (_resealed(f"byok_{public}_" + "0" * 43), new_token().text):
        compared.clear(), asked.clear()
        with pytest.raises(TokenRejected) as caught:
            authenticate(services.control, wrong)
        seen.append((list(compared), list(asked), str(caught.value), caught.value.hint))
    assert seen[0] == seen[1]
    # The digests are compared once, whole, and whatever the database had.
    assert seen[0][0] == [(64, 64)]


def test_33_a_dump_of_the_control_plane_holds_nothing_that_authenticates(both):
    with both.open() as services:
        issued = services.administration.issue(services.actor, None, lifetime=timedelta(days=1))
        rotated = services.administration.rotate(services.actor, issued.id)
        texts = [*both.tokens.values(), issued.text, rotated.text]
        secrets = [*texts, *(text[-49:-6] for text in texts)]
        raw = b"".join(path.read_bytes() for path in both.acme.data.glob("control.db*"))
        assert issued.id.encode() in raw and not hits(raw, secrets)
        assert not re.search(rb"byok_[0-9A-Za-z]{12}_", raw)
        with services.control.read() as connection:
            rows = [row for table in metadata.sorted_tables for row in connection.execute(select(table))]
            ids = [row.id for row in connection.execute(select(token))]
        values = {value for row in rows for value in row if isinstance(value, str)}
        assert not hits("\n".join(values), secrets)
        dressed = {_resealed(f"byok_{one}_{value[:43]}") for one in ids for value in values if len(value) >= 43 and value[:43].isalnum()}
        assert len(dressed) > len(ids) ** 2
        for text in values | dressed:
            with pytest.raises(TokenRejected):
                authenticate(services.control, text)
        for text in (both.tokens["owner"], issued.text, rotated.text):
            assert authenticate(services.control, text).email == "owner@acme.example"


# --- 32c: administration


def test_32c_members_come_change_go_and_come_back(services):
    administration, owner, control = services.administration, services.actor, services.control
    made = administration.add_member(owner, "ada@acme.example", "viewer")
    assert authenticate(control, made.text).scopes == {MODELS_READ} and made.text not in repr(made)
    administration.set_role(owner, "ada@acme.example", "editor")
    assert authenticate(control, made.text).scopes == ROLES["editor"]
    assert not administration.set_active(owner, "ada@acme.example", active=False).active
    with pytest.raises(TokenRejected, match="suspended"):
        authenticate(control, made.text)
    # Nor do tokens work that are made meanwhile.
    later = administration.issue(owner, "ada@acme.example", lifetime=timedelta(hours=1))
    with pytest.raises(TokenRejected, match="suspended"):
        authenticate(control, later.text)
    assert administration.set_active(owner, "ada@acme.example", active=True).active
    assert authenticate(control, made.text).email == authenticate(control, later.text).email == "ada@acme.example"
    told = {one.email: (one.role, one.active) for one in administration.members(owner)}
    assert told == {
        "ada@acme.example": ("editor", True),
        "owner@acme.example": ("admin", True),
        "worker@service.invalid": ("service", True),
    }


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda a, o: a.add_member(o, "owner@acme.example", "admin"), MemberExists),
        (lambda a, o: a.add_member(o, "ada@acme.example", "root"), BadRole),
        (lambda a, o: a.add_member(o, "ada", "viewer"), BadOrganisation),
        (lambda a, o: a.add_member(o, "ada@acme.example\n", "viewer"), BadOrganisation),
        (lambda a, o: a.set_role(o, "nobody@acme.example", "viewer"), MemberNotFound),
        (lambda a, o: a.set_role(o, "owner@acme.example", "service"), BadRole),
        (lambda a, o: a.set_role(o, "worker@service.invalid", "admin"), BadRole),
        (lambda a, o: a.set_role(o, "owner@acme.example", "Admin"), BadRole),
        (lambda a, o: a.set_active(o, "nobody@acme.example", active=False), MemberNotFound),
        (lambda a, o: a.issue(o, "nobody@acme.example", lifetime=timedelta(days=1)), MemberNotFound),
        (lambda a, o: a.revoke(o, "0" * 12), TokenNotFound),
        (lambda a, o: a.rotate(o, "' OR 1=1 --"), TokenNotFound),
        (lambda a, o: a.rotate(o, None, grace=timedelta(days=8)), BadLifetime),
        (lambda a, o: a.rotate(o, None, grace=timedelta(seconds=-1)), BadLifetime),
        (lambda a, o: a.set_role(o, "owner@acme.example", "editor"), LastAdmin),
        (lambda a, o: a.set_active(o, "owner@acme.example", active=False), LastAdmin),
    ],
)
def test_32c_what_cannot_be_administered_changes_nothing(services, change, error):
    def stored():
        with services.control.read() as connection:
            return [row for table in metadata.sorted_tables for row in connection.execute(select(table))]

    before = stored()
    with pytest.raises(error) as caught:
        change(services.administration, services.actor)
    assert caught.value.hint and stored() == before


def test_32c_a_suspended_admin_does_not_count_as_another_one(services):
    administration, owner = services.administration, services.actor
    administration.add_member(owner, "ada@acme.example", "admin")
    administration.set_active(owner, "ada@acme.example", active=False)
    with pytest.raises(LastAdmin):
        administration.set_role(owner, "owner@acme.example", "viewer")
    administration.set_active(owner, "ada@acme.example", active=True)
    assert administration.set_role(owner, "owner@acme.example", "viewer").role == "viewer"


def test_32c_two_admins_who_suspend_each_other_at_once_leave_one(services):
    administration, owner = services.administration, services.actor
    other = authenticate(services.control, administration.add_member(owner, "ada@acme.example", "admin").text)
    barrier, ended = threading.Barrier(2), []

    def suspend(actor, email):
        barrier.wait()
        try:
            administration.set_active(actor, email, active=False)
        except LastAdmin:
            ended.append(email)

    threads = [threading.Thread(target=suspend, args=pair) for pair in ((owner, "ada@acme.example"), (other, "owner@acme.example"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == 1
    assert [one.email for one in administration.members(owner) if one.role == "admin" and one.active] == ended


def ends_now(services, token_id, *, passed):
    """Move the end of a token to just before, or just after, this moment."""
    with services.control.write() as connection:
        moved = utcnow() + timedelta(seconds=-1 if passed else 60)
        assert connection.execute(update(token).where(token.c.id == token_id).values(expires_at=moved)).rowcount == 1


def test_32c_after_a_rotation_both_tokens_work_for_a_day_and_then_the_new_one_alone(services):
    old = services.home.token_file.read_text().strip()
    made = services.administration.rotate(services.actor, None)
    day = timedelta(hours=24)
    assert day - timedelta(minutes=5) < made.old_until - utcnow() <= day
    with services.control.read() as connection:
        ends = {row.id: row.expires_at for row in connection.execute(select(token))}
    assert ends[services.actor.token_id] == made.old_until and ends[made.id] > made.old_until
    ends_now(services, services.actor.token_id, passed=False)
    for text in (old, made.text):
        assert authenticate(services.control, text).email == "owner@acme.example"
    ends_now(services, services.actor.token_id, passed=True)
    with pytest.raises(TokenRejected, match="expired"):
        authenticate(services.control, old)
    assert authenticate(services.control, made.text).token_id == made.id


def test_32c_a_rotation_never_makes_an_old_token_last_longer(services):
    short = services.administration.issue(services.actor, None, lifetime=timedelta(minutes=1))
    made = services.administration.rotate(services.actor, short.id, grace=timedelta(days=7))
    assert abs(made.old_until - short.expires_at) < timedelta(seconds=10)


def test_32c_without_grace_the_old_token_ends_at_once(services):
    old = services.home.token_file.read_text().strip()
    made = services.administration.rotate(services.actor, None, grace=timedelta(0))
    with pytest.raises(TokenRejected, match="expired"):
        authenticate(services.control, old)
    assert authenticate(services.control, made.text).role == "admin"


def test_32c_a_revoked_token_ends_at_once_and_no_other_with_it(services):
    made = services.administration.issue(services.actor, None, name="laptop", lifetime=timedelta(days=1))
    assert authenticate(services.control, made.text).token_id == made.id
    services.administration.revoke(services.actor, made.id)
    with pytest.raises(TokenRejected, match="revoked"):
        authenticate(services.control, made.text)
    assert authenticate(services.control, services.home.token_file.read_text().strip()).role == "admin"
    states = {one.id: one.state for one in services.administration.tokens(services.actor)}
    assert states[made.id] == "revoked" and states[services.actor.token_id] == "active"
    with services.control.read() as connection:
        revoked = connection.execute(select(token.c.revoked_at).where(token.c.id == made.id)).scalar()
    # To revoke it again does not move the time at which it ended; no rotation brings it back.
    services.administration.revoke(services.actor, made.id)
    with pytest.raises(TokenNotFound):
        services.administration.rotate(services.actor, made.id)
    with services.control.read() as connection:
        assert connection.execute(select(token.c.revoked_at).where(token.c.id == made.id)).scalar() == revoked
    with pytest.raises(TokenRejected, match="revoked"):
        authenticate(services.control, made.text)


def test_32c_a_token_expires_and_within_a_year(services):
    for lifetime in (timedelta(0), timedelta(seconds=59), timedelta(days=-1), timedelta(days=365, seconds=1), timedelta.max):
        with pytest.raises(BadLifetime):
            services.administration.issue(services.actor, None, lifetime=lifetime)
    with services.control.read() as connection:
        assert len(connection.execute(select(token)).all()) == 2
    made = services.administration.issue(services.actor, None, lifetime=timedelta(days=365))
    assert timedelta(days=364) < made.expires_at - utcnow() <= timedelta(days=365)


def test_32c_the_database_itself_takes_no_token_without_an_end(services):
    made = new_token()
    values = (made.id, services.actor.member_id, made.digest, utcnow().isoformat())
    connection = sqlite3.connect(services.home.data / "control.db")
    with pytest.raises(sqlite3.IntegrityError, match="expires_at"):
        connection.execute("INSERT INTO token (id, member_id, digest, created_at) VALUES (?, ?, ?, ?)", values)
    connection.close()
    assert not token.c.expires_at.nullable


def test_32c_a_member_administers_their_own_tokens_and_nobody_else_s(services):
    administration = services.administration
    ada = authenticate(services.control, administration.add_member(services.actor, "ada@acme.example", "viewer").text, services.audit)
    made = administration.issue(ada, None, lifetime=timedelta(days=1))
    assert {one.email for one in administration.tokens(ada)} == {"ada@acme.example"}
    assert len(administration.tokens(ada)) == 2
    administration.rotate(ada, made.id)
    administration.revoke(ada, made.id)
    for act in (administration.rotate, administration.revoke):
        for other in (services.actor.token_id, "0" * 12):
            # Whether there is such a token is not told either.
            with pytest.raises(ScopeMissing):
                act(ada, other)
    with pytest.raises(ScopeMissing):
        administration.issue(ada, "owner@acme.example", lifetime=timedelta(days=1))
    assert authenticate(services.control, services.home.token_file.read_text().strip()).role == "admin"


def test_32c_a_stolen_token_makes_none_that_outlives_it_and_a_machine_makes_none_at_all(services):
    administration = services.administration
    ada = authenticate(services.control, administration.add_member(services.actor, "ada@acme.example", "editor").text, services.audit)
    worker = authenticate(services.control, services.home.worker_token_file.read_text().strip(), services.audit)
    with pytest.raises(BadLifetime):
        administration.issue(ada, None, lifetime=timedelta(days=91))
    with pytest.raises(ScopeMissing):
        administration.issue(worker, None, lifetime=timedelta(hours=1))
    assert {one.email for one in administration.tokens(services.actor)} >= {"ada@acme.example"}
    assert len(administration.tokens(services.actor)) == 3


def test_32c_a_rotated_token_takes_the_place_of_the_old_one_in_its_own_file_alone(services, monkeypatch, call):
    path, old = services.home.token_file, services.home.token_file.read_text().strip()
    code, shown, _ = call(["token", "rotate"], None, "--json")
    told = json.loads(shown)["token"]
    assert code == 0 and told["saved"] and path.read_text().strip() == told["text"] != old
    assert path.stat().st_mode & 0o777 == 0o600
    # A token of the environment does not overwrite the file of somebody else.
    code, shown, _ = call(["token", "rotate"], old, "--json")
    assert code == 0 and not json.loads(shown)["token"]["saved"] and path.read_text().strip() == told["text"]
    assert digest(told["text"]) == hashlib.sha256(told["text"].encode()).hexdigest()
    with pytest.raises(NotPermitted):
        authenticate(services.control, told["text"], organisation="rival")
