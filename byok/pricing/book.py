"""The price book: what an owner enters of prices, and what is in force."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import Row, select, update

from byok.access import MODELS_READ, MODELS_WRITE, Actor, AuditLog, require
from byok.clock import iso, utcnow
from byok.control import ControlPlane
from byok.control.tables import model as model_table
from byok.errors import InputError, NotFound
from byok.money import parse_usd, plain
from byok.pricing.entries import PriceEntry, read_entries, write_entry
from byok.pricing.prices import ModelPrices, Price

MOST_GPUS = 100_000


class BadPrice(InputError):
    """A price that cannot be: parts of several kinds, none at all, or amounts that are none."""

    code = "bad_price"


class PriceOfPublicModel(InputError):
    """A public model's tokens are billed in ECU, by the rate card: there is nothing to set."""

    code = "price_of_public_model"


class NoSuchModel(NotFound):
    """No model of that key."""

    code = "model_not_registered"


class PriceBook:
    """The prices of an organisation's models.

    Args:
        control: Where they are stored.
        audit: Where every entry is recorded.
    """

    def __init__(self, control: ControlPlane, audit: AuditLog) -> None:
        self._control, self._audit = control, audit

    def set(
        self,
        actor: Actor,
        model: str,
        *,
        input: Decimal | None = None,
        cached_input: Decimal | None = None,
        output: Decimal | None = None,
        reasoning: Decimal | None = None,
        usd_per_gpu_hour: Decimal | None = None,
        gpus: int | None = None,
        reported: bool = False,
        effective_from: datetime | None = None,
        note: str = "",
    ) -> PriceEntry:
        """Enter a price: of tokens, of GPU hours, or that what the endpoint tells counts. Nothing that was billed changes.

        Args:
            actor: Who.
            model: Key of the model.
            input: USD per million tokens of prompts.
            cached_input: USD per million of those that came from a cache; None: as `input`.
            output: USD per million tokens of answers.
            reasoning: USD per million of those that are reasoning; None: as `output`.
            usd_per_gpu_hour: USD for each hour of each GPU, in place of a price of tokens.
            gpus: GPUs that serve the model; None: 1.
            reported: Take what the endpoint says that each request cost (`usage.cost`), in place of a price of tokens.
            effective_from: From when on it holds; None: now.
            note: The owner's own words.

        Raises:
            ScopeMissing: The actor lacks `models:write`.
            NotFound: There is no such model.
            PriceOfPublicModel: Its tokens are billed in ECU.
            BadPrice, BadAmount: It is no price.
        """
        require(actor, MODELS_WRITE, "price.set")
        row = self._model(actor, model)
        if row.public:
            raise PriceOfPublicModel(
                f"the tokens of public model {model!r} are billed in ECU, by the rate card", hint=f"see it with: byok price show {model}"
            )
        tokens = {"input": input, "cached_input": cached_input, "output": output, "reasoning": reasoning}
        kind = _kind(tokens, usd_per_gpu_hour, gpus, reported)
        amounts = {name: _checked(name, usd) for name, usd in {**tokens, "usd_per_gpu_hour": usd_per_gpu_hour}.items()}
        at = utcnow()
        start = at if effective_from is None else effective_from
        told = {name: None if usd is None else plain(usd) for name, usd in amounts.items()}
        if kind == "gpu_hour":
            gpus = _gpus(gpus)
        with self._audit.act(actor, "price.set", model, kind=kind, effective_from=iso(start), gpus=gpus, **told) as connection:
            entry = write_entry(connection, actor.org_id, row.id, actor.member_id, kind, start, gpus=gpus, note=note[:500], **amounts)
            shown = ModelPrices(read_entries(connection, actor.org_id, row.id), row.base_url, row.remote_id).at(at)
            if shown.version == entry.version and (row.price_input, row.price_output) != (shown.input, shown.output):
                # What is shown with the model is the price of its tokens now.
                now = {"price_input": shown.input, "price_output": shown.output, "revision": model_table.c.revision + 1, "updated_at": at}
                connection.execute(update(model_table).where(model_table.c.id == row.id).values(**now))
        return entry

    def history(self, actor: Actor, model: str) -> list[PriceEntry]:
        """The owner's entries, the latest to take effect first; of several from the same time on, the one that counts first.

        Raises:
            ScopeMissing: The actor lacks `models:read`.
            NotFound: There is no such model.
        """
        require(actor, MODELS_READ, "price.history")
        row = self._model(actor, model)
        with self._control.read() as connection:
            entries = read_entries(connection, actor.org_id, row.id)
        return sorted(reversed(entries), key=lambda entry: entry.effective_from, reverse=True)

    def show(self, actor: Actor, model: str, at: datetime | None = None, prompt_tokens: int | None = None) -> Price:
        """The price in force, wherever it comes from.

        Args:
            actor: Who.
            model: Key of the model.
            at: When; None: now.
            prompt_tokens: Tokens of a prompt, by which some lists have tiers.

        Raises:
            ScopeMissing: The actor lacks `models:read`.
            NotFound: There is no such model.
        """
        require(actor, MODELS_READ, "price.show")
        row = self._model(actor, model)
        with self._control.read() as connection:
            prices = ModelPrices(read_entries(connection, actor.org_id, row.id), row.base_url, row.remote_id)
        return prices.at(at or utcnow(), prompt_tokens)

    def _model(self, actor: Actor, key: str) -> Row[Any]:
        with self._control.read() as connection:
            row = connection.execute(select(model_table).where(model_table.c.org_id == actor.org_id, model_table.c.key == key)).first()
        if row is None:
            raise NoSuchModel(f"no model {key!r}", hint="list the models with: byok model list", model=key)
        return row


def _kind(
    tokens: dict[str, Decimal | None], usd_per_gpu_hour: Decimal | None, gpus: int | None, reported: bool
) -> Literal["token", "gpu_hour", "reported"]:
    by_token = any(usd is not None for usd in tokens.values())
    by_hour = usd_per_gpu_hour is not None or gpus is not None
    if by_token + by_hour + reported != 1:
        raise BadPrice(
            "a price is of tokens, of GPU hours, or what the endpoint reports: one of them",
            hint="--input and --output (USD per million tokens), --gpu-hour USD (with --gpus N), or --reported",
        )
    if by_hour and usd_per_gpu_hour is None:
        raise BadPrice("GPUs alone are no price", hint="add --gpu-hour USD")
    if by_token and tokens["input"] is None and tokens["output"] is None:
        raise BadPrice("a price of cached or reasoning tokens goes with one of the others", hint="add --input and --output")
    return "reported" if reported else "gpu_hour" if by_hour else "token"


def _checked(name: str, usd: Decimal | None) -> Decimal | None:
    return None if usd is None else parse_usd(str(usd), what=name)


def _gpus(gpus: int | None) -> int:
    if gpus is None:
        return 1
    if not 1 <= gpus <= MOST_GPUS:
        raise BadPrice(f"{gpus} GPUs serve no model", hint=f"--gpus from 1 to {MOST_GPUS}")
    return gpus
