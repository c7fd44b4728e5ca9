"""Rewraps and moves of sealed keys, in processes that die at a chosen call or at a chosen time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Stops:
    """Passes all calls on to an object, and sends its own process a signal before or after one of them.

    Args:
        real: The object.
        call: Name of the method.
        number: At which of its calls, from 1.
        after: Whether the call is made first.
        sent: The signal.
    """

    def __init__(self, real: Any, call: str, number: int, *, after: bool, sent: int) -> None:
        self._real, self._call, self._left, self._after, self._sent = real, call, number, after, sent

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name != self._call:
            return found

        def called(*arguments: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                os.kill(os.getpid(), self._sent)
            done = found(*arguments)
            if self._left == 0 and self._after:
                os.kill(os.getpid(), self._sent)
            return done

        return called


class Killer:
    """Work in processes of their own; its interpreter is started once, and each piece of work is a fork of it."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child

    def run(
        self, work: str, call: str, number: int = 1, *, after: bool = False, within_s: float | None = None, sent: int = signal.SIGKILL
    ) -> dict[str, Any]:
        """Do a piece of work until it dies; tells `signal` and `pid`, or `stopped`.

        Args:
            work: `rewrap`, `migrate transit` or `migrate local`.
            call: The call at which it dies: of the key store, or `control.compact`.
            number: Which of these calls.
            after: Whether that call is made first.
            within_s: Die at this time after the work began, if that comes first.
            sent: The signal; SIGSTOP leaves the process as it is until `end`.
        """
        return self._ask({"work": work, "call": call, "number": number, "after": after, "within_s": within_s, "sent": int(sent)})

    def end(self) -> dict[str, Any]:
        """Kill the process that was stopped."""
        return self._ask({"end": True})

    def _ask(self, told: dict[str, Any]) -> dict[str, Any]:
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(json.dumps(told) + "\n")
        self._child.stdin.flush()
        answer: dict[str, Any] = json.loads(self._child.stdout.readline())
        return answer


@contextlib.contextmanager
def killer(environment: dict[str, str]) -> Iterator[Killer]:
    """Start the interpreter; it and what it forked end with the context."""
    path = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-m", "byok_testing.killing"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment | path
    ) as child:
        try:
            yield Killer(child)
        finally:
            assert child.stdin is not None
            child.stdin.close()
            child.wait(30)


def writable_memory(pid: int) -> bytes:
    """What a process has in the memory that it can write to."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights = line.split()[:2]
            start, end = (int(one, 16) for one in place.split("-"))
            if rights.startswith("rw"):
                # Pages that are reserved and were never touched cannot be read.
                with contextlib.suppress(OSError):
                    memory.seek(start)
                    found.append(memory.read(end - start))
    return b"\0".join(found)


def _work(told: dict[str, Any]) -> None:
    from byok.app import open_services
    from byok.keystore import VaultSettings, open_keystore, open_local
    from byok.registry import Migration, Rewrapper

    work, _, to = told["work"].partition(" ")
    services = open_services()
    owner, _, call = told["call"].rpartition(".")

    def stops(real: Any) -> Any:
        return Stops(real, call, told["number"], after=told["after"], sent=told["sent"])

    control = stops(services.control) if owner == "control" else services.control
    if work == "rewrap":
        Rewrapper(control, stops(services.keystore), services.audit).run(services.actor)
        return
    local = open_local(services.home.kek_file)
    vault = open_keystore(services.home, VaultSettings.from_environment(services.home))
    source, target = (local, vault) if to == "transit" else (vault, local)
    Migration(control, source, stops(target), services.audit).run(services.actor)


def _fork(told: dict[str, Any]) -> dict[str, Any]:
    begun, began = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.write(began, b"!")
            _work(told)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(began)
    os.read(begun, 1)
    os.close(begun)
    if told["within_s"] is not None:
        time.sleep(told["within_s"])
        os.kill(pid, signal.SIGKILL)
    return _wait(pid)


def _wait(pid: int) -> dict[str, Any]:
    _, status = os.waitpid(pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return {"pid": pid, "stopped": True}
    return {"pid": pid, "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, "exit": os.waitstatus_to_exitcode(status)}


def main() -> None:
    """Do what is asked for on standard input, one piece of work after the other."""
    import byok.app
    import byok.registry  # noqa: F401  so that each fork has it already

    stopped = 0
    try:
        for line in sys.stdin:
            told = json.loads(line)
            if told.get("end"):
                os.kill(stopped, signal.SIGKILL)
                answer = _wait(stopped)
                stopped = 0
            else:
                answer = _fork(told)
                stopped = answer["pid"] if answer.get("stopped") else 0
            print(json.dumps(answer), flush=True)
    finally:
        if stopped:
            os.kill(stopped, signal.SIGKILL)


if __name__ == "__main__":
    main()
