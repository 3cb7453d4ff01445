"""A short chaos run on a broker of its own: killed, and forged all along, nothing is lost."""

from __future__ import annotations

from chaos import schedule
from chaos.run import Run, run

SEED = 5
SECONDS = 12.0
KILLS = 4
# A second, on each topic that only stages should write.
FORGERIES = 50.0


def test_killed_at_any_instant_and_forged_all_along_nothing_is_lost_doubled_or_altered() -> None:
    """Four kills, a worker more and one less, and a dead broker leave a log as promised.

    So does a client without the key: what it puts between ours is refused once, and nothing else.
    """
    faults = schedule.chaos(SEED, SECONDS, KILLS)
    said = [f"seed {SEED}", *map(str, faults)]
    story = run(
        Run(
            SEED,
            faults,
            seconds=SECONDS,
            rate=500,
            partitions=2,
            forgeries=FORGERIES,
            variables={"STREAM_ML_CHECKPOINT_SECONDS": "3"},
        ),
        said.append,
    )

    assert story.verdict.clean, "\n".join([*said, story.verdict.text()])
    assert story.verdict.figures["predictions"] > SECONDS * 250
    assert len(story.faults) >= len(faults)
    assert sum(story.forgery_counts.values()) > SECONDS * FORGERIES / 20
