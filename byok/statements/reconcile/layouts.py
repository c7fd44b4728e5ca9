"""Which column of a provider's usage export means what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from byok.errors import InputError


class LayoutUnknown(InputError):
    """It is not known which columns of the file mean what."""

    code = "usage_layout_unknown"


class BadMap(InputError):
    """A mapping that cannot be used."""

    code = "usage_map_invalid"


@dataclass(frozen=True)
class Layout:
    """The columns of an export. Several columns of one meaning are added up.

    Attributes:
        name: What it is called in the result.
        day: Column of the day, or of a moment in it.
        model: Column of the model's name; None: the file is of one model.
        input: Columns of input tokens, cached ones included.
        output: Columns of output tokens, reasoning included.
        requests: Columns of requests; empty: not told.
        cost: Columns of the cost in USD; empty: not told.
        each: Whether each row is one request.
        currency: Column that must say USD.
    """

    name: str
    day: str
    model: str | None = None
    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()
    cost: tuple[str, ...] = ()
    each: bool = False
    currency: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that it reads."""
        return (self.day, *([self.model] if self.model else []), *self.input, *self.output, *self.requests, *self.cost)


KNOWN = (
    # OpenAI's usage export and the answers of its usage API (GET /v1/organization/usage/completions), whose input includes what was cached.
    Layout("openai", "start_time", "model", ("input_tokens",), ("output_tokens",), ("num_model_requests",)),
    # Anthropic's console export, and its usage API (GET /v1/organizations/usage_report/messages).
    Layout(
        "anthropic",
        "usage_date_utc",
        "model_version",
        (
            "usage_input_tokens_no_cache",
            "usage_input_tokens_cache_write_5m",
            "usage_input_tokens_cache_write_1h",
            "usage_input_tokens_cache_read",
        ),
        ("usage_output_tokens",),
    ),
    Layout(
        "anthropic-api",
        "starting_at",
        "model",
        (
            "uncached_input_tokens",
            "cache_creation.ephemeral_5m_input_tokens",
            "cache_creation.ephemeral_1h_input_tokens",
            "cache_read_input_tokens",
        ),
        ("output_tokens",),
    ),
    # OpenRouter's activity API (by day), and the export of its activity page (by request).
    Layout("openrouter", "date", "model", ("prompt_tokens",), ("completion_tokens",), ("requests",), ("usage",)),
    Layout(
        "openrouter-activity", "created_at", "model_permaslug", ("tokens_prompt",), ("tokens_completion",), (), ("cost_total",), each=True
    ),
)

_NAMES: dict[str, tuple[str, ...]] = {
    "day": ("day", "date", "usage_date", "timestamp", "time", "start_time", "created_at"),
    "model": ("model", "model_id", "model_name", "model_version"),
    "input": ("input_tokens", "input", "prompt_tokens", "tokens_in"),
    "output": ("output_tokens", "output", "completion_tokens", "tokens_out"),
    "requests": ("requests", "num_requests", "request_count", "calls"),
    "cost": ("cost", "cost_usd", "amount_usd", "usd"),
}
_CURRENCY = ("currency", "amount_currency")


def parse_map(text: str) -> dict[str, tuple[str, ...]]:
    """A mapping such as `day=Date,model=Model,input=In+Cached,cost=USD`; `+` adds columns up.

    Raises:
        BadMap: A part names no meaning, one stands twice, or a column is empty.
    """
    found: dict[str, tuple[str, ...]] = {}
    for part in text.split(","):
        meaning, _, columns = part.partition("=")
        meaning = meaning.strip()
        names = tuple(name.strip() for name in columns.split("+"))
        if meaning not in _NAMES or meaning in found or not all(names) or (meaning in ("day", "model") and len(names) > 1):
            raise BadMap(f"--map: {part.strip()[:80]!r}", hint="day=…,model=…,input=…,output=…,requests=…,cost=… with names of columns")
        found[meaning] = names
    return found


def layout_of(columns: list[str], mapping: Mapping[str, tuple[str, ...]]) -> Layout:
    """The layout of a file: as mapped, else one that is known, else by common names.

    Raises:
        LayoutUnknown: No day, or nothing to compare.
        BadMap: A column of the mapping is not there.
    """
    there = set(columns)
    missing = [name for names in mapping.values() for name in names if name not in there]
    if missing:
        raise BadMap(f"--map: the file has no column {missing[0]!r}", hint="its columns: " + ", ".join(columns)[:400])
    known = next((one for one in KNOWN if set(one.columns) <= there), None)
    if known is not None and not mapping:
        return known
    guess = {meaning: next(((name,) for name in names if name in there), ()) for meaning, names in _NAMES.items()} | dict(mapping)
    made = Layout(
        name="mapped" if mapping else "guessed",
        day=guess["day"][0] if guess["day"] else "",
        model=guess["model"][0] if guess["model"] else None,
        input=guess["input"],
        output=guess["output"],
        requests=guess["requests"],
        cost=guess["cost"],
        currency=next((name for name in _CURRENCY if name in there), None),
    )
    if not made.day or not (made.input or made.output or made.requests or made.cost):
        raise LayoutUnknown(
            "it is not clear which columns tell the day and the usage",
            hint="say so: --map day=…,model=…,input=…,output=…,requests=…,cost=…; the columns: " + ", ".join(columns)[:300],
        )
    return made
