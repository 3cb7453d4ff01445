"""Hostile bytes for whatever reads a line's state, in a new process that tells what it runs."""

from __future__ import annotations

import subprocess
import sys

__all__ = ["ran"]

# Behind a setup that makes `recipe` and `genuine`, the bytes of a learner of it.
_TRIAL = """
import hashlib, pickle, sys

class Canary:
    def __reduce__(self):
        return exec, ("import this",)

recipe.load(genuine)  # all that is imported at first use is now
payload = pickle.dumps(Canary())
half = len(genuine) // 2
bodies = [payload, genuine + payload, genuine[:half] + payload, genuine[:-32] + payload]
bodies += [payload + genuine, genuine[:6] + payload * 9, genuine[:half], genuine[:-1]]
seen = []
sys.addaudithook(lambda event, _: seen.append(event))
for body in bodies:
    for data in (body, body + hashlib.sha256(body).digest()):
        try:
            recipe.load(data)
        except Exception as error:
            assert type(error).__name__ == "SnapshotRefused", error
        else:
            raise SystemExit(f"taken: {data[:80]!r}")
print(sorted({"exec", "compile", "import", "os.system", "pickle.find_class"} & set(seen)))
"""


def ran(setup: str) -> tuple[str, str]:
    """What a new process has run over hostile bytes, by the interpreter's word, and its errors.

    Args:
        setup: Python that makes `recipe` and `genuine`.
    """
    run = subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", setup + _TRIAL], capture_output=True, text=True, check=False
    )
    return run.stdout.strip(), run.stderr.strip()
