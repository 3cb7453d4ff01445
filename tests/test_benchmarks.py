"""Benchmarks that are run by hand go on working: what monitors cost is measured by turns."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from benchmarks.monitors import CONTESTANTS, monitor_costs, print_costs
from benchmarks.turns import in_turns

BUSY = """
import sys
from benchmarks.turns import Turns

turns = Turns()
for number in range(20):
    sum(range(int(sys.argv[1])))
    turns.end_piece(is_last=number == 19)
"""


def test_who_works_thrice_as_much_costs_about_thrice_as_much() -> None:
    """Turn by turn the costs of two contestants are told apart, though both share a core."""
    commands = [[sys.executable, "-c", BUSY, work] for work in ("400000", "1200000")]

    little, much = in_turns(commands)

    assert (20, 20) == (len(little), len(much))
    assert 2.0 < sum(much) / sum(little) < 4.5


def test_a_contestant_that_fails_ends_the_comparison() -> None:
    """A run that has failed gives no figure."""
    failing = BUSY + "raise SystemExit(3)\n"

    with pytest.raises(RuntimeError, match="ended with 3"):
        in_turns([[sys.executable, "-c", failing, "1"]])
    with pytest.raises(RuntimeError, match="ended with 1"):
        in_turns([[sys.executable, "-c", "import nothing_of_this_name"]])


def test_the_benchmark_prints_what_monitors_cost(capsys: pytest.CaptureFixture[str]) -> None:
    """The cards work without monitors, and each way of watching as a multiple of that."""
    [costs_s] = monitor_costs(events=1_200, rounds=1)

    print_costs([costs_s], events=1_200)

    assert all(seconds > 0 for seconds in costs_s.values())
    _, title, *lines = capsys.readouterr().out.splitlines()
    assert "monitors: CPU, in turns" in title
    assert list(CONTESTANTS) == [line[:34].strip() for line in lines]


def test_whoever_is_killed_while_a_change_is_applied_it_comes_to_the_same() -> None:
    """`plan`, `apply`, `up` and `rebuild` are processes, killed at random instants."""
    words = ["-m", "benchmarks.apply_kills", "--seeds", "1", "--first-seed", "7", "--events", "900"]
    ended = subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, *words], capture_output=True, text=True, check=False, timeout=600
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    summary = ended.stdout.splitlines()[-1]
    assert re.fullmatch(r"1 of 1 seeds equal, [1-9][0-9]* processes killed", summary)
