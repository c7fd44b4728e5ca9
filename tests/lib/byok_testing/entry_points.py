"""Every way into the product, found by looking at it, and what each takes: a new one fails the tests until it is listed here."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from importlib import import_module
from types import ModuleType
from typing import Any

from pydantic import SecretStr

import byok
from byok.access import (
    BILLING_READ,
    BILLING_WRITE,
    MODELS_READ,
    MODELS_WRITE,
    ORG_ADMIN,
    RUNS_WRITE,
    Actor,
    GrantNotFound,
    MemberNotFound,
    TokenNotFound,
)
from byok.app import Services
from byok.billing import apply_prices
from byok.cli.main import app
from byok.datasets import DatasetNotFound, Mapping
from byok.grading import JudgeNotFound
from byok.ids import new_id
from byok.ledger import HoldNotFound, TransactionNotFound
from byok.pricing import NoSuchModel
from byok.registry import Migration, ModelChanges, ModelNotFound, RegisterRequest, Rewrapper, SealedKey, stored_secrets
from byok.runs import (
    EvaluationRequest,
    NothingToRefund,
    Resumption,
    RunNotGoing,
    RunUnknown,
    answer_shard,
    ask_run,
    bill_run,
    change_run,
    close_run,
    embed_shard,
    estimate_run,
    finish_run,
    judge_shard,
    open_run,
    probe_models,
    refund_run,
    resume_run,
    start_run,
)
from byok.runs.live import look_at
from byok.statements import Month, close_month
from byok_testing.organisations import Organisations


def modules(package: ModuleType) -> Iterator[ModuleType]:
    """A package and all modules below it."""
    yield package
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if "migrations" not in found.name:
            yield import_module(found.name)


# --- commands


def command_names() -> list[tuple[str, ...]]:
    """All commands, read from the application itself."""

    def below(group: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        names = [name for name in group if not name.startswith("-")]
        return [path] if not names else [leaf for name in names for leaf in below(group[name], (*path, name))]

    return below(app, ())


@dataclass(frozen=True)
class Command:
    """One way to call a command.

    Attributes:
        words: The command and its arguments; names in braces are filled in (see `words_of`).
        scopes: What it takes; none: any member.
        from_rival: Code of the error when rival's admin names acme's objects from rival's home; None: it concerns rival alone.
        service_too: Whether a machine may do it without the scope.
        served: Whether it goes on until it is stopped.
    """

    words: str
    scopes: frozenset[str]
    from_rival: str | None = None
    service_too: bool = False
    served: bool = False

    def is_of(self, name: tuple[str, ...]) -> bool:
        """Whether this calls the command of that name."""
        return tuple(self.words.split()[: len(name)]) == name

    def words_of(self, both: Organisations, **facts: str) -> list[str]:
        """The words with everything filled in."""
        facts |= {
            "token": both.token_ids["bystander"],
            "grant": both.grant_id,
            "run": both.run_id,
            "topup": both.top_up_id,
            "file": str(both.root / "questions.jsonl"),
            "usage": str(both.root / "usage.csv"),
        }
        return [word.format(**facts) for word in self.words.split()]


def _command(words: str, *scopes: str, **options: Any) -> Command:
    return Command(words, frozenset(scopes), **options)


_REGISTER = "model register new --name N --base-url {url} --model-id {remote} --api-key-env PROVIDER_KEY"

COMMANDS = [
    _command("member add new@acme.example", ORG_ADMIN),
    _command("member list", ORG_ADMIN),
    _command("member role bystander@acme.example editor", ORG_ADMIN, from_rival="member_not_found"),
    _command("member suspend bystander@acme.example", ORG_ADMIN, from_rival="member_not_found"),
    _command("member restore suspended@acme.example", ORG_ADMIN, from_rival="member_not_found"),
    _command("token issue --expires 1d"),
    _command("token issue --member bystander@acme.example", ORG_ADMIN, from_rival="member_not_found"),
    _command("token list"),
    _command("token rotate"),
    _command("token rotate {token}", ORG_ADMIN, from_rival="token_not_found"),
    _command("token revoke {token}", ORG_ADMIN, from_rival="token_not_found"),
    _command("audit list", ORG_ADMIN),
    _command("audit verify", ORG_ADMIN),
    _command(_REGISTER, MODELS_WRITE),
    _command(f"{_REGISTER} --public", MODELS_WRITE, ORG_ADMIN),
    _command("model list", MODELS_READ),
    _command("model show m", MODELS_READ, from_rival="model_not_registered"),
    _command("model probe m", MODELS_READ, MODELS_WRITE, from_rival="model_not_registered"),
    _command("model rotate m --api-key-env PROVIDER_KEY", MODELS_READ, MODELS_WRITE, from_rival="model_not_registered"),
    _command("model update m --name Other", MODELS_READ, MODELS_WRITE, from_rival="model_not_registered"),
    _command("model disable m", MODELS_READ, MODELS_WRITE, from_rival="model_not_registered"),
    _command("key seal new --base-url {url} --api-key-env PROVIDER_KEY", MODELS_WRITE),
    _command("key seal m --api-key-env PROVIDER_KEY", MODELS_READ, MODELS_WRITE, from_rival="model_not_registered"),
    _command("grant register new --base-url {url}", MODELS_WRITE),
    _command("grant rotate m", MODELS_READ, MODELS_WRITE, from_rival="model_not_registered"),
    _command("grant list", MODELS_WRITE),
    _command("grant revoke {grant}", MODELS_WRITE, from_rival="grant_not_found"),
    _command("vault setup", ORG_ADMIN, from_rival="vault_not_configured"),
    _command("vault status", MODELS_READ),
    _command("vault rewrap", ORG_ADMIN, service_too=True),
    _command("vault migrate --to transit", ORG_ADMIN, from_rival="vault_not_configured"),
    _command("vault dev --port 0", ORG_ADMIN, served=True),
    _command("dataset add e {file}", RUNS_WRITE),
    _command("dataset list", MODELS_READ),
    _command("dataset show d", MODELS_READ, from_rival="dataset_not_found"),
    _command("judge create k --model m --system helpfulness", MODELS_READ, RUNS_WRITE, from_rival="model_not_registered"),
    _command("judge list", MODELS_READ),
    _command("judge show j", MODELS_READ, from_rival="judge_not_found"),
    _command("estimate m d --grader numeric", MODELS_READ, from_rival="model_not_registered"),
    _command("evaluate m d --grader numeric", MODELS_READ, RUNS_WRITE, from_rival="model_not_registered"),
    _command("run list", MODELS_READ),
    _command("run show {run}", MODELS_READ, from_rival="run_not_found"),
    _command("run resume {run}", RUNS_WRITE, from_rival="run_not_found"),
    _command("run watch {run} --once", MODELS_READ, from_rival="run_not_found"),
    _command("run pause {run}", RUNS_WRITE, from_rival="run_not_found"),
    _command("run continue {run}", RUNS_WRITE, from_rival="run_not_found"),
    _command("run cancel {run}", RUNS_WRITE, from_rival="run_not_found"),
    _command("bill show {run}", BILLING_READ, from_rival="run_not_found"),
    _command("bill balance", BILLING_READ),
    _command("bill topup 5", BILLING_WRITE, BILLING_READ),
    _command("bill ledger", BILLING_READ),
    _command("bill verify", BILLING_READ),
    _command("bill reverse {topup} --reason mistaken", BILLING_WRITE, BILLING_READ, from_rival="transaction_not_found"),
    _command("bill refund {run} --reason mistaken", BILLING_WRITE, BILLING_READ, from_rival="run_not_found"),
    _command("bill settings --overdraft 5", BILLING_WRITE),
    _command("bill statement", BILLING_READ),
    _command("bill consumption", BILLING_READ),
    _command("bill close 2020-01", BILLING_WRITE),
    _command("bill export --focus -o page.html", BILLING_READ),
    _command("bill reconcile {usage}", BILLING_READ),
    _command("price show m", MODELS_READ, from_rival="model_not_registered"),
    _command("price set m --input 1 --output 2", MODELS_READ, MODELS_WRITE, from_rival="model_not_registered"),
    _command("price history m", MODELS_READ, from_rival="model_not_registered"),
    _command("price apply", BILLING_WRITE),
    _command("report {run} -o page.html", MODELS_READ, BILLING_READ, from_rival="run_not_found"),
    _command("sql --file {query}", MODELS_READ, BILLING_READ),
]

NO_TOKEN_NEEDED = {
    ("init",): "makes the first member, who cannot have a token yet; in an installation that is there it changes nothing",
    ("doctor",): "says, among other things, whether there is a valid token; shows no object of an organisation",
    ("sandbox", "serve"): "answers from a file that the caller names; opens no installation",
    ("sandbox", "profiles"): "reads what ships; opens no installation",
    ("provider", "list"): "reads what ships; opens no installation",
    ("provider", "show"): "as provider list",
    ("schema", "show"): "says what the views of this version mean; opens no installation",
    ("endpoint", "check"): "asks an address that the caller names with a key that the caller gives; opens no installation",
    ("demo",): "makes an installation of its own, with a key that opens nothing",
    ("up",): "starts processes of the caller's own account; what they do, they do by the worker's token, which every task checks",
}


# --- services


@dataclass(frozen=True)
class Act:
    """One act of a service.

    Attributes:
        call: Does it, with services and the actor.
        scopes: What it takes; none: any member.
        from_rival: What the admin of another organisation meets who names acme's objects; None: it concerns their own alone.
        own_home: Whether it works on what is the home's rather than the actor's, so that only the home's lock keeps others out.
    """

    call: Callable[[Services, Actor], Any]
    scopes: frozenset[str]
    from_rival: type[Exception] | None = None
    own_home: bool = False


def _act(call: Callable[[Services, Actor], Any], *scopes: str, **options: Any) -> Act:
    return Act(call, frozenset(scopes), **options)


def _steer(services: Services, run_id: str) -> None:
    with suppress(RunNotGoing):
        ask_run(services, run_id, "pause")


def _run(stage: Callable[..., Any], *arguments: Any) -> Callable[[Services, Actor], Any]:
    """A stage of the installation's one run."""

    def call(services: Services, actor: Actor) -> Any:
        (folder,) = services.home.runs.iterdir()
        return stage(replace(services, actor=actor), folder.name, *arguments)

    return call


def _url(services: Services) -> str:
    return services.registry.get(services.actor, "m").base_url


def _request(services: Services, **options: Any) -> RegisterRequest:
    return RegisterRequest(key="new", name="N", base_url=_url(services), remote_id="acme/remote", **options)


def _sealed(services: Services, **of: str) -> SealedKey:
    return services.registry.seal(services.actor, of.get("key", "new"), _KEY, base_url=None if of else _url(services))


def _grant_id(services: Services) -> str:
    return next(one.id for one in services.grants.list(services.actor))


def _hold_id(services: Services) -> str:
    return services.ledger.hold(services.actor, "first", 10).id


def _top_up_id(services: Services) -> str:
    return services.ledger.top_up(services.actor, 1_000_000, operation="first").id


def _stranger_id(services: Services) -> str:
    return next(one.id for one in services.administration.tokens(services.actor) if one.email == "bystander@acme.example")


_KEY = SecretStr("sk-next-77e2b9d4c1f04a36bb58d0aa")
_WRITE = (MODELS_READ, MODELS_WRITE)
_OTHER = "bystander@acme.example"
_EVALUATION = EvaluationRequest(model="m", dataset="d", graders=["numeric"])

ACTS = {
    "Administration.add_member": _act(lambda s, a: s.administration.add_member(a, "new@acme.example", "viewer"), ORG_ADMIN),
    "Administration.members": _act(lambda s, a: s.administration.members(a), ORG_ADMIN),
    "Administration.set_role": _act(lambda s, a: s.administration.set_role(a, _OTHER, "editor"), ORG_ADMIN, from_rival=MemberNotFound),
    "Administration.set_active": _act(
        lambda s, a: s.administration.set_active(a, _OTHER, active=False), ORG_ADMIN, from_rival=MemberNotFound
    ),
    "Administration.issue": _act(
        lambda s, a: s.administration.issue(a, _OTHER, lifetime=timedelta(days=1)), ORG_ADMIN, from_rival=MemberNotFound
    ),
    "Administration.tokens": _act(lambda s, a: s.administration.tokens(a)),
    "Administration.revoke": _act(lambda s, a: s.administration.revoke(a, _stranger_id(s)), ORG_ADMIN, from_rival=TokenNotFound),
    "Administration.rotate": _act(lambda s, a: s.administration.rotate(a, _stranger_id(s)), ORG_ADMIN, from_rival=TokenNotFound),
    "Grants.make": _act(
        lambda s, a: s.grants.make(a, "register", "new", "https://x.example:443", lifetime=timedelta(hours=1)), MODELS_WRITE
    ),
    "Grants.list": _act(lambda s, a: s.grants.list(a), MODELS_WRITE),
    "Grants.revoke": _act(lambda s, a: s.grants.revoke(a, _grant_id(s)), MODELS_WRITE, from_rival=GrantNotFound),
    "Registry.register": _act(lambda s, a: s.registry.register(a, _request(s), _KEY), MODELS_WRITE),
    "Registry.register_sealed": _act(
        # The key is acme's: another organisation's member cannot bring it.
        lambda s, a: s.registry.register_sealed(a, _request(s), None),
        MODELS_WRITE,
    ),
    "Registry.seal": _act(lambda s, a: s.registry.seal(a, "m", _KEY), *_WRITE, from_rival=ModelNotFound),
    "Lookup.get": _act(lambda s, a: s.registry.get(a, "m"), MODELS_READ, from_rival=ModelNotFound),
    "Lookup.by_id": _act(lambda s, a: s.registry.by_id(a, s.registry.get(s.actor, "m").id), MODELS_READ, from_rival=ModelNotFound),
    "Lookup.list": _act(lambda s, a: s.registry.list(a), MODELS_READ),
    "Lookup.key_versions": _act(lambda s, a: s.registry.key_versions(a, "m"), MODELS_READ, from_rival=ModelNotFound),
    "Registry.probe": _act(lambda s, a: s.registry.probe(a, "m"), *_WRITE, from_rival=ModelNotFound),
    "Registry.update": _act(lambda s, a: s.registry.update(a, "m", ModelChanges(name="Other")), *_WRITE, from_rival=ModelNotFound),
    "Registry.rotate": _act(lambda s, a: s.registry.rotate(a, "m", _KEY), *_WRITE, from_rival=ModelNotFound),
    "Registry.rotate_sealed": _act(lambda s, a: s.registry.rotate_sealed(a, "m", _sealed(s, key="m")), *_WRITE, from_rival=ModelNotFound),
    "Registry.disable": _act(lambda s, a: s.registry.disable(a, "m"), *_WRITE, from_rival=ModelNotFound),
    "PriceBook.set": _act(lambda s, a: s.prices.set(a, "m", input=Decimal(1)), MODELS_WRITE, from_rival=NoSuchModel),
    "PriceBook.history": _act(lambda s, a: s.prices.history(a, "m"), MODELS_READ, from_rival=NoSuchModel),
    "PriceBook.show": _act(lambda s, a: s.prices.show(a, "m"), MODELS_READ, from_rival=NoSuchModel),
    "apply_prices": _act(lambda s, a: apply_prices(s.control, s.warehouse, s.audit, a), BILLING_WRITE),
    "Health.to_check": _act(lambda s, a: s.health.to_check(a), MODELS_READ, RUNS_WRITE),
    "Health.check": _act(lambda s, a: s.health.check(a, "m"), MODELS_READ, RUNS_WRITE, from_rival=ModelNotFound),
    "stored_secrets": _act(lambda s, a: stored_secrets(s.control, a, s.keystore), MODELS_READ),
    "Rewrapper.run": _act(lambda s, a: Rewrapper(s.control, s.keystore, s.audit).run(a), ORG_ADMIN, own_home=True),
    # Both stores are the same one here, so nothing would move; the command `vault migrate` moves keys for real.
    "Migration.run": _act(lambda s, a: Migration(s.control, s.keystore, s.keystore, s.audit).run(a), ORG_ADMIN),
    "Ledger.top_up": _act(lambda s, a: s.ledger.top_up(a, 1_000_000), BILLING_WRITE),
    "Ledger.reverse": _act(lambda s, a: s.ledger.reverse(a, _top_up_id(s), "mistaken"), BILLING_WRITE, from_rival=TransactionNotFound),
    "Ledger.reverse_credit": _act(
        lambda s, a: s.ledger.reverse_credit(a, _top_up_id(s), "mistaken"), BILLING_WRITE, from_rival=TransactionNotFound
    ),
    "Ledger.change_settings": _act(lambda s, a: s.ledger.change_settings(a, overdraft_limit=5), BILLING_WRITE),
    "LedgerHolds.hold": _act(lambda s, a: s.ledger.hold(a, new_id(), 5), RUNS_WRITE),
    "LedgerHolds.settle": _act(lambda s, a: s.ledger.settle(a, _hold_id(s), 5), RUNS_WRITE, from_rival=HoldNotFound),
    "LedgerHolds.release": _act(lambda s, a: s.ledger.release(a, _hold_id(s)), RUNS_WRITE, from_rival=HoldNotFound),
    "LedgerReader.balance": _act(lambda s, a: s.ledger.balance(a), BILLING_READ),
    "LedgerReader.transactions": _act(lambda s, a: s.ledger.transactions(a), BILLING_READ),
    "LedgerReader.settlements": _act(lambda s, a: s.ledger.settlements(a, new_id()), BILLING_READ),
    "LedgerReader.settled": _act(lambda s, a: s.ledger.settled(a, new_id()), RUNS_WRITE),
    "LedgerReader.holds": _act(lambda s, a: s.ledger.holds(a, new_id()), RUNS_WRITE),
    "LedgerReader.verify": _act(lambda s, a: s.ledger.verify(a), BILLING_READ),
    "Datasets.add": _act(lambda s, a: s.datasets.add(a, "e", s.home.root.parent / "questions.jsonl", Mapping()), RUNS_WRITE),
    "Datasets.list": _act(lambda s, a: s.datasets.list(a), MODELS_READ),
    "Datasets.get": _act(lambda s, a: s.datasets.get(a, "d"), MODELS_READ, from_rival=DatasetNotFound),
    "Judges.create": _act(
        lambda s, a: s.judges.create(a, "k", "m", "binary", "Is {{output}} right?"), MODELS_READ, RUNS_WRITE, from_rival=ModelNotFound
    ),
    "Judges.get": _act(lambda s, a: s.judges.get(a, "j"), MODELS_READ, from_rival=JudgeNotFound),
    "Judges.list": _act(lambda s, a: s.judges.list(a), MODELS_READ),
    "start_run": _act(
        lambda s, a: start_run(replace(s, actor=a), _EVALUATION, new_id()), MODELS_READ, RUNS_WRITE, from_rival=ModelNotFound
    ),
    "estimate_run": _act(lambda s, a: estimate_run(replace(s, actor=a), _EVALUATION), MODELS_READ, from_rival=ModelNotFound),
    "refund_run": _act(_run(refund_run, "mistaken"), BILLING_READ, BILLING_WRITE, from_rival=NothingToRefund),
    "open_run": _act(_run(open_run, "run.resume"), RUNS_WRITE, from_rival=RunUnknown),
    "resume_run": _act(_run(resume_run), RUNS_WRITE, from_rival=RunUnknown),
    "change_run": _act(_run(change_run, Resumption(max_requests=1000)), RUNS_WRITE, from_rival=RunUnknown),
    "ask_run": _act(_run(_steer), RUNS_WRITE, from_rival=RunUnknown),
    "close_run": _act(_run(close_run, "run_crashed"), RUNS_WRITE, from_rival=RunUnknown),
    "look_at": _act(_run(look_at), MODELS_READ, from_rival=RunUnknown),
    "probe_models": _act(_run(probe_models), RUNS_WRITE, from_rival=RunUnknown),
    "answer_shard": _act(_run(answer_shard, 0), RUNS_WRITE, from_rival=RunUnknown),
    "embed_shard": _act(_run(embed_shard, "embedding_similarity:model=e", 0), RUNS_WRITE, from_rival=RunUnknown),
    "judge_shard": _act(_run(judge_shard, "j", 0), RUNS_WRITE, from_rival=RunUnknown),
    "bill_run": _act(_run(bill_run), RUNS_WRITE, from_rival=RunUnknown),
    "finish_run": _act(_run(finish_run), RUNS_WRITE, from_rival=RunUnknown),
    "close_month": _act(lambda s, a: close_month(replace(s, actor=a), Month(2020, 1)), BILLING_WRITE),
}

NO_SCOPE_NEEDED = {
    "require": "is the check",
    "AuditLog.act": "records what another service has allowed",
    "AuditLog.by": "records what another service has allowed or refused",
    "Grants.take": "the grant that is brought is the authority; see test_grants.py",
    "Grants.look": "as Grants.take",
    "Grants.refuse": "refuses",
    "FrontDoor.register": "as Grants.take",
    "FrontDoor.rotate": "as Grants.take",
    **dict.fromkeys(
        [
            *("answer_rows", "begin", "check_credit", "earlier_answers", "earlier_verdicts", "estimate", "hold_credit", "open_stage"),
            *("plan_run", "seal", "seal_all", "settle_credit", "tell_warnings"),
        ],
        "is a part of start_run, estimate_run, resume_run, bill_run, answer_shard, embed_shard, judge_shard, probe_models or close_run, "
        "which have asked",
    ),
    "enter_price": "is a part of Registry.register and Registry.update, which have asked",
    "Standing.record": "counts a check that another service has allowed",
    "Lookup.check_sealed": "only refuses; the front door asks it before it takes a grant",
}


def acting() -> set[str]:
    """Public functions and methods of the domain that act for somebody: they take an actor, or services that hold one."""
    found = set()
    for module in modules(byok):
        # Commands are entry points of their own; what they call is what is listed here.
        if module.__name__.startswith("byok.cli"):
            continue
        mine = [one for one in vars(module).values() if getattr(one, "__module__", None) == module.__name__]
        for one in mine:
            if inspect.isclass(one):
                found |= {f"{one.__name__}.{name}" for name, method in vars(one).items() if name[0] != "_" and _acts(method)}
            elif inspect.isfunction(one) and _acts(one) and one.__name__[0] != "_":
                found.add(one.__name__)
    return found


def _acts(function: Any) -> bool:
    function = getattr(function, "__func__", function)
    if not inspect.isfunction(function):
        return False
    parameters = inspect.signature(function).parameters.values()
    return any(one.annotation in ("Actor", "Services") for one in parameters)
