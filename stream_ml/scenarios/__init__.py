"""Made-up worlds that change by a script, for tests and for a look: the truth is known.

A scenario makes flagged card payments, some of them fraud, and says what it did to them: when the
world or the pipeline's inputs changed, how good the best possible answers are, which line should
serve, and what a monitor should say. What it says stands apart from the records, never in one.

>>> from stream_ml.scenarios import SCENARIOS, generate
>>> SCENARIOS["sudden"].summary
'the concept turns into its opposite at half time'
>>> run = generate("sudden", seed=1, events=1_000)
>>> topics = [topic for topic, _ in run]
>>> topics.count("events"), topics.count("labels")
(1000, 1000)
>>> truth = run.truth()
>>> [(change["event"], change["diagnosis"], change["field"]) for change in truth["changes"]]
[(500, 'concept', None)]

`stream_ml.examples.payments` declares pipelines for them. The same scenario, seed and number of
events give the same records in every process.
"""

from stream_ml.scenarios.faults import FAULTS
from stream_ml.scenarios.lines import LINES
from stream_ml.scenarios.world import Scenario, Steady
from stream_ml.scenarios.worlds import WORLDS

__all__ = ["EVENTS", "SCENARIOS", "Scenario", "generate"]

EVENTS = 20_000
_ALL: tuple[type[Scenario], ...] = (Steady, *WORLDS, *FAULTS, *LINES)
SCENARIOS = {scenario.name: scenario for scenario in _ALL}


def generate(name: str, *, seed: int = 1, events: int = EVENTS) -> Scenario:
    """A scenario, ready to be iterated once.

    Args:
        name: one of `SCENARIOS`.
        seed: the same one gives the same records.
        events: how many payments are made.

    Raises:
        ValueError: there is no such scenario, or there are fewer than 1 events.
    """
    scenario = SCENARIOS.get(name)
    if scenario is None:
        raise ValueError(f"scenario: expected one of {', '.join(SCENARIOS)}, given {name!r}")
    if events < 1:
        raise ValueError(f"events: expected at least 1, given {events}")
    return scenario(seed, events)
