"""The least that a client in Python does: ask all rows, parse, compare; nothing is stored, checked or billed.

    python benchmarks/bare_loop.py --url http://127.0.0.1:8000/v1 --rows rows.jsonl [--concurrency 64] [--floor]

httpx over httpx-aiohttp under a semaphore, as a person would write it. 429, 5xx and broken connections are tried again: after
`Retry-After`, or else after 0.25 s that double each time; the slot is free meanwhile. With --floor, aiohttp alone and nothing tried again:
nobody who sends requests from Python on this machine is faster. Prints one line of JSON.
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

import aiohttp
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


async def ask_barely(url: str, rows: list[dict[str, str]], concurrency: int) -> list[bool | None]:
    """The same with aiohttp alone, by as many workers as may be under way at once."""
    source, right = iter(rows), list[bool | None]()
    headers = {"authorization": "Bearer bare", "content-type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency), headers=headers) as client:

        async def work() -> None:
            for row in source:
                body = json.dumps({"model": "mock-model", "messages": [{"role": "user", "content": row["input"]}]}).encode()
                async with client.post(f"{url}/chat/completions", data=body) as reply:
                    told = json.loads(await reply.read())
                right.append(told["choices"][0]["message"]["content"].strip() == row["expected"])

        await asyncio.gather(*(work() for _ in range(concurrency)))
    return right


def main() -> None:
    """Ask and print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--floor", action="store_true")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    before, started = os.times(), time.perf_counter()
    ask = ask_barely if options.floor else ask_all
    right = asyncio.run(ask(options.url, rows, options.concurrency))
    window, after = time.perf_counter() - started, os.times()
    done = [one for one in right if one is not None]
    told = {"rows": len(done), "right": sum(done), "window_s": window, "cpu_s": after.user + after.system - before.user - before.system}
    json.dump(told, sys.stdout)
    print()


if __name__ == "__main__":
    main()
