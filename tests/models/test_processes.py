"""Whatever process learns it: what a declaration accepts learns the same, and says the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("answers.py")


def test_processes_and_restarts_change_no_bit_of_an_answer() -> None:
    """Every accepted estimator answers alike under another hash seed, also after it was restored.

    One process teaches each of them, with every kind of label, without a pause; the other, in
    which sets of texts have another order, writes each and reads it back on the way.
    """
    runs = [
        subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-W", "ignore", SCRIPT, how],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(SCRIPT.parents[2])},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed, how in (("1", "straight"), ("2", "restored"))
    ]
    (order, *straight), (other, *restored) = (run.communicate()[0].splitlines() for run in runs)

    assert [0, 0] == [run.returncode for run in runs]
    assert order != other, "the seeds give the classes one order: choose others"
    assert straight == restored
    assert len(straight) > 300
