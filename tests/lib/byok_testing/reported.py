"""A warehouse with something in it for every question: runs over sandboxes whose answers and tokens are known."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from byok.app import open_services
from byok.cli.init import initialise
from byok.home import Home
from byok.sandbox import Fault
from byok_testing.bench import Bench, Hook

QUESTIONS = [(f"What is {n} + {n}?", str(2 * n)) for n in range(1, 11)]
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 60},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
"""What each answer of the candidates says that it took."""

HALF = ({1, 2, 3, 4, 5}, {1, 2, 3, 4, 10})
"""What the model `half` knows in its first run, and in its second."""


def _number(question: str) -> int:
    return int(question.split()[2]) if question.startswith("What is ") else 0


def _mind(known: set[int], number: int | None, fault: Fault | None) -> Hook:
    """Answers with the tokens of `USAGE`, rightly what it knows; but at first the fault, at the question of that number."""
    waiting = {number}

    def answer(_: int, question: str) -> Fault | None:
        n = _number(question)
        if n in waiting:
            waiting.clear()
            return fault
        return Fault(text=f"The answer is {2 * n if n in known else 2 * n + 1}.", usage=USAGE)

    return answer


@contextmanager
def reported(folder: Path) -> Iterator[Bench]:
    """An installation after five runs on the same ten questions.

    `right` (10 USD per million tokens) is right and judged, with one refusal for too many requests; `half` (2 USD) is run twice and knows
    half, not quite the same; `dear` (50 USD) knows nine; `free` has no price, and one connection to it is cut. The judge costs 1 USD.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("BYOK_")]:
            patch.delenv(name)
        patch.setenv("BYOK_HOME", str(folder / "home"))
        initialise(Home.from_environment(), "acme", "owner@acme.example")
        services = open_services()
        with Bench(services, patch, folder, QUESTIONS) as bench:
            prices = {"right": "10", "half": "2", "dear": "50", "free": None, "judge": "1"}
            for key, price in prices.items():
                bench.serve(key, price=price)
            services.judges.create(services.actor, "one", "judge", "binary", "Is {{output}} right?")
            everything = set(range(1, 11))
            once = {"right": (3, Fault(status=429, headers={"Retry-After": "0"})), "free": (4, Fault(cut=True))}
            for key, known in (
                ("right", everything),
                ("half", HALF[0]),
                ("half", HALF[1]),
                ("dear", everything - {1}),
                ("free", everything),
            ):
                bench.faults[key] = _mind(known, *once.pop(key, (None, None)))
                bench.run(model=key, judges=["one"] if key == "right" else [])
            yield bench
        services.control.close()
