"""Measuring processes: a function of one of our modules, run in a process of its own.

Rule: keyword arguments go in as JSON, what it returns comes back as JSON; whoever starts one waits
for it with a deadline or ends it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import dns_place

ROOT = Path(__file__).resolve().parents[1]
_CODE = "from benchmarks.dns_child import serve; serve()"


class Child:
    """A running one; a context that ends it.

    Args:
        target: ``module:function``.
        core: To run on; None: any.
        arguments: Of the function.
    """

    def __init__(self, target: str, core: int | None = None, **arguments: Any) -> None:
        self._target = target
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        spec = {"target": target, "core": core, "arguments": arguments}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(spec).encode() + b"\n")
        self.process.stdin.flush()

    def line(self) -> Any:
        """The next thing it says through `tell`."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        if not text:
            raise RuntimeError(f"{self._target} ended without a word")
        return json.loads(text)

    def result(self, timeout: float) -> Any:
        """What the function returned.

        Raises:
            subprocess.TimeoutExpired: it has not within `timeout` seconds; it is ended.
            RuntimeError: it failed.
        """
        try:
            said, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.stop()
            raise
        if self.process.returncode:
            raise RuntimeError(f"{self._target} ended with status {self.process.returncode}")
        return json.loads(said.splitlines()[-1])

    def stop(self) -> None:
        """End it."""
        dns_place.end(self.process, 2.0)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def call(
    target: str,
    core: int | None = None,
    *,
    timeout: float,
    **arguments: Any,
) -> Any:
    """Run a function in a process of its own and return its result, as `Child` does."""
    with Child(target, core, **arguments) as child:
        return child.result(timeout)


def tell(value: object) -> None:
    """In the child: say something before the end."""
    print(json.dumps(value), flush=True)


def serve() -> None:
    """In the child: do what standard input asks for."""
    spec = json.loads(sys.stdin.readline())
    if spec["core"] is not None:
        os.sched_setaffinity(0, {spec["core"]})
    dns_place.favour(os.getpid())
    module, _, name = spec["target"].partition(":")
    function = getattr(importlib.import_module(module), name)
    gc.freeze()
    gc.disable()  # a collection would be taken for the server's stall
    tell(function(**spec["arguments"]))
