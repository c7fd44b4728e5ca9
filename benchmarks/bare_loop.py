"""The least that a client in Python does: ask all rows, parse, compare; nothing is stored, checked or billed.

    python benchmarks/bare_loop.py --url http://127.0.0.1:8000/v1 --rows rows.jsonl [--concurrency 64]

httpx over httpx-aiohttp under a semaphore, as a person would write it. 429, 5xx and broken connections are tried again: after
`Retry-After`, or else after 0.25 s that double each time; the slot is free meanwhile. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from pathlib import Path

import httpx
from httpx_aiohttp import HttpxAiohttpClient

ATTEMPTS = 8


async def ask_all(url: str, rows: list[dict[str, str]], concurrency: int) -> list[bool | None]:
    """For each row whether its answer is right; None where there is none."""
    semaphore = asyncio.Semaphore(concurrency)
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    headers = {"authorization": "Bearer bare"}
    async with HttpxAiohttpClient(limits=limits, timeout=60, headers=headers, trust_env=False) as client:

        async def ask(row: dict[str, str]) -> bool | None:
            body = {"model": "mock-model", "messages": [{"role": "user", "content": row["input"]}]}
            for attempt in range(ATTEMPTS):
                wait = 0.25 * 2**attempt * random.uniform(0.75, 1.25)
                try:
                    async with semaphore:
                        reply = await client.post(f"{url}/chat/completions", json=body)
                except httpx.TransportError:
                    pass
                else:
                    if reply.status_code == 200:
                        return bool(reply.json()["choices"][0]["message"]["content"].strip() == row["expected"])
                    wait = float(reply.headers.get("retry-after", wait))
                await asyncio.sleep(wait)
            return None

        return await asyncio.gather(*(ask(row) for row in rows))


def main() -> None:
    """Ask and print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    before, started = os.times(), time.perf_counter()
    right = asyncio.run(ask_all(options.url, rows, options.concurrency))
    window, after = time.perf_counter() - started, os.times()
    done = [one for one in right if one is not None]
    told = {"rows": len(done), "right": sum(done), "window_s": window, "cpu_s": after.user + after.system - before.user - before.system}
    json.dump(told, sys.stdout)
    print()


if __name__ == "__main__":
    main()
