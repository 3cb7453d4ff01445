"""The report: figures that can be computed by hand, and files that can be opened."""

from __future__ import annotations

import json
import math
import struct
import sys
from typing import TYPE_CHECKING, Any

import pytest

from stream_ml.errors import UsageError
from stream_ml.records import (
    Decision,
    Evaluation,
    Example,
    ModelRef,
    Prediction,
    ServingSet,
    Shadow,
    Source,
)
from stream_ml.shell.report.plots import draw
from stream_ml.shell.report.run import Report
from stream_ml.shell.report.text import report_text

if TYPE_CHECKING:
    from pathlib import Path

    from stream_ml.records import Answer, LabelValue

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
JANUARY_MS = 1_356_998_400_000  # 2013-01-01 00:00 UTC
FEBRUARY_MS = JANUARY_MS + 31 * DAY_MS


def example(
    ts: int,
    label: LabelValue,
    served: Answer,
    *,
    model: str = "sgd@1",
    fallback: bool = False,
    delay_ms: int = HOUR_MS,
    **shadows: Answer | Shadow,
) -> Example:
    """An example whose shadows are given by slot; a bare answer is of version 1."""
    said = {
        slot: value if isinstance(value, Shadow) else Shadow(f"{slot}@1", value)
        for slot, value in shadows.items()
    }
    prediction = Prediction(
        event_id=f"{ts}",
        key="k",
        ts=ts,
        source=Source(0, 0),
        model=model,
        example=0,
        prediction=served,
        fallback=fallback,
        features={},
        shadows=said,
    )
    return Example(prediction, label, ts + delay_ms, Source(0, 0))


def decision(
    number: int,
    kind: str,
    champion: str,
    predecessor: str | None = None,
    first: str | None = None,
    evidence: dict[str, Any] | None = None,
) -> Decision:
    """A decision at the first hour of that number in January."""
    before, frozen = (
        None if name is None else ModelRef(name, "d", 0) for name in (predecessor, first)
    )
    serving = ServingSet(ModelRef(champion, "d", 0), {}, before, frozen)
    ts = JANUARY_MS + number * HOUR_MS
    return Decision(number, kind, ts, "ann", "why not", serving, {}, previous="", evidence=evidence)


def evaluation(model: str, hour: int, evidence: dict[str, Any] | None) -> Evaluation:
    """How a model stands at that hour of January, its evidence above all."""
    ts = JANUARY_MS + hour * HOUR_MS
    return Evaluation(model, f"{model}@1", ts, 1, {}, 1.0, {}, evidence)


def binary(examples: list[Example], **arguments: Any) -> Report:
    """A report of a binary task."""
    return Report("binary", examples, horizon_ms=DAY_MS, **arguments)


def test_months_have_the_scores_of_their_examples() -> None:
    """Scores by hand: one month, four examples, two who answer."""
    report = binary(
        [
            example(JANUARY_MS + 0, False, 0.1, adagrad=0.5),
            example(JANUARY_MS + 1, False, 0.4, adagrad=0.5),
            example(JANUARY_MS + 2, True, 0.35, adagrad=0.5),
            example(JANUARY_MS + 3, True, 0.8, adagrad=0.5),
        ]
    )

    january, total = report.months()

    assert (january.month, total.month) == ("2013-01", "all")
    assert (january.n, january.true_share) == (4, 0.5)
    assert january.scores["served"]["ROC AUC"] == 0.75
    assert january.scores["served"]["Brier"] == pytest.approx(
        (0.1**2 + 0.4**2 + 0.65**2 + 0.2**2) / 4
    )
    assert january.scores["adagrad"] == pytest.approx(
        {"ROC AUC": 0.5, "log loss": math.log(2), "Brier": 0.25}
    )
    assert january.scores == total.scores


def test_months_are_those_of_the_event_not_of_the_label() -> None:
    """An event of 31 January counts for January, although its label came in February."""
    report = binary(
        [
            example(FEBRUARY_MS - 1, True, 0.5),
            example(FEBRUARY_MS, False, 0.5),
        ]
    )

    assert [(row.month, row.n) for row in report.months()] == [
        ("2013-01", 1),
        ("2013-02", 1),
        ("all", 2),
    ]


def test_months_are_those_of_the_zone() -> None:
    """Half past midnight in UTC on 1 February is still January in New York."""
    report = binary([example(FEBRUARY_MS + HOUR_MS // 2, True, 0.5)], zone="America/New_York")

    assert report.months()[0].month == "2013-01"
    assert "2013-01-31 to 2013-01-31 (America/New_York)" in report_text(report)


def test_only_examples_that_all_answered_are_compared() -> None:
    """What the first model could not answer yet is not held for or against the others."""
    report = binary(
        [
            example(JANUARY_MS, True, 0.0),
            example(JANUARY_MS + 1, True, 0.9, first=0.5),
            example(JANUARY_MS + 2, False, 0.1, first=0.5),
        ]
    )

    total = report.months()[-1]

    assert total.n == 2
    assert total.scores["served"]["Brier"] == pytest.approx(0.01)
    assert total.scores["first"]["Brier"] == 0.25


def test_who_is_silent_for_a_month_leaves_its_scores_to_the_others() -> None:
    """January is scored although the challenger came in February; the total needs both."""
    report = binary(
        [
            example(JANUARY_MS, True, 0.9),
            example(FEBRUARY_MS, True, 0.8, tree=0.6),
        ]
    )

    january, february, total = report.months()

    assert (january.n, february.n, total.n) == (1, 1, 1)
    assert "tree" not in january.scores
    assert february.scores["tree"]["Brier"] == pytest.approx(0.16)


def test_fallback_is_no_answer() -> None:
    """A declared fallback is neither scored nor counted as an answer."""
    report = binary(
        [
            example(JANUARY_MS, True, 0.5, fallback=True),
            example(JANUARY_MS + 1, True, 0.9),
        ]
    )

    assert report.months()[-1].n == 1
    assert report.coverage() == {"answered": 0.5}


def test_prior_knows_only_the_labels_of_its_time() -> None:
    """The baseline answers with the share of true labels known when the event came."""
    report = binary(
        [
            example(JANUARY_MS, True, 0.5, delay_ms=10),
            example(JANUARY_MS + 5, False, 0.5, delay_ms=10),
            example(JANUARY_MS + 12, True, 0.5, delay_ms=10),
            example(JANUARY_MS + 20, True, 0.5, delay_ms=10),
        ]
    )

    # At 12 the first label is known, at 20 the first two: answers 1 and 1/2, both to a true one.
    total = report.months()[-1]

    assert total.n == 2
    assert total.scores["prior"]["Brier"] == pytest.approx((0 + 0.25) / 2)


def test_champion_and_challenger_keep_their_columns_after_a_replacement() -> None:
    """`served` follows the champion; each line's own column goes on under its name."""
    report = binary(
        [
            example(JANUARY_MS, True, 0.6, model="sgd@1", adagrad=0.9),
            example(JANUARY_MS + 1, True, 0.8, model="adagrad@2", sgd=0.5),
        ]
    )

    scores = report.months()[-1].scores

    assert set(scores) == {"served", "adagrad", "sgd"}
    assert scores["served"]["Brier"] == pytest.approx((0.4**2 + 0.2**2) / 2)
    assert scores["adagrad"]["Brier"] == pytest.approx((0.1**2 + 0.2**2) / 2)
    assert scores["sgd"]["Brier"] == pytest.approx((0.4**2 + 0.5**2) / 2)


def test_champion_that_never_challenged_has_no_second_column() -> None:
    """While one line serves throughout, `served` is its column."""
    report = binary([example(JANUARY_MS, True, 0.6, predecessor=0.5)])

    assert set(report.months()[-1].scores) == {"served"}


def test_gain_of_a_refresh_is_measured_while_it_served() -> None:
    """A refresh is held against its predecessor on what both answered, and on nothing else."""
    before = Shadow("sgd@1", 0.6)
    report = binary(
        [
            example(JANUARY_MS, True, 0.6, model="sgd@1"),
            *[
                example(JANUARY_MS + i, True, 0.8, model="sgd@2", predecessor=before)
                for i in range(1, 211)
            ],
            example(JANUARY_MS + 211, True, None, model="sgd@2", predecessor=before),
            example(JANUARY_MS + 212, True, 0.7, model="sgd@3", predecessor=Shadow("sgd@2", 0.8)),
        ],
        decisions=[
            decision(0, "bootstrap", "sgd@0"),
            decision(1, "refreshed", "sgd@1", "sgd@0"),
            decision(2, "refreshed", "sgd@2", "sgd@1"),
            decision(3, "refreshed", "sgd@3", "sgd@2"),
        ],
    )

    assert [(r.model, r.predecessor, r.n) for r in report.refreshes()] == [
        ("sgd@1", "sgd@0", 0),
        ("sgd@2", "sgd@1", 210),
        ("sgd@3", "sgd@2", 1),
    ]
    assert [r.gain for r in report.refreshes()] == [
        None,
        pytest.approx(0.4**2 - 0.2**2),
        pytest.approx(0.2**2 - 0.3**2),
    ]
    summary = report.as_dict()["refreshes"]
    assert (summary["count"], summary["scored"], summary["better"]) == (3, 1, 1)
    assert summary["mean_gain"] == pytest.approx(0.12)
    assert "refreshes: 3; of 1 with at least 200 labels, 1 beat their predecessor" in report_text(
        report
    )
    assert "mean +0.1200, worst +0.1200 (sgd@2, 210 labels)" in report_text(report)


def test_live_is_scored_on_the_examples_of_the_others() -> None:
    """The bound has a column of its own, of the examples that everyone answered."""
    report = binary([])
    report.add(example(JANUARY_MS, True, 0.5), {"live": None})
    report.add(example(JANUARY_MS + 1, True, 0.5, first=0.6), {"live": 0.9})
    report.add(example(JANUARY_MS + 2, True, 0.5, first=0.6), {"live": 0.7})

    total = report.months()[-1]

    assert list(total.scores) == ["served", "first", "live", "prior"][: len(total.scores)]
    assert (total.n, total.scores["live"]["Brier"]) == (2, pytest.approx((0.01 + 0.09) / 2))
    assert "share true  served   first    live" in report_text(report)


def report_of_a_gap() -> Report:
    """Examples before and after a replacement; every answer is a power of one half.

    The first of them is scored by nobody, for the prior does not know a label yet.
    """
    report = binary(
        [],
        decisions=[
            decision(0, "bootstrap", "sgd@0"),
            decision(1, "refreshed", "sgd@1", "sgd@0", first="sgd@1"),
            decision(5, "replaced", "adagrad@2", "sgd@1", first="sgd@1"),
        ],
    )
    for hour, model, served in ((2, "sgd@1", 4), (3, "sgd@1", 4), (6, "adagrad@2", 1)):
        settled = {"adagrad@2": 0.25} if hour > 5 else {}
        report.add(
            example(JANUARY_MS + hour * HOUR_MS, True, 0.5**served, model=model, first=0.5**4),
            {"live": 0.5, "adagrad@1": 0.5**3, **settled},
        )
    return report


def test_gap_is_told_as_the_share_that_was_closed() -> None:
    """Of three bits between first and live, serving closed none, then all: half on average."""
    everything, since = report_of_a_gap().gaps()

    bit = math.log(2)
    assert (everything.since, everything.n, since.since, since.n) == ("all", 2, "adagrad@2", 1)
    assert everything.losses == pytest.approx(
        {"first": 4 * bit, "adagrad@1": 3 * bit, "served": 2.5 * bit, "live": bit}
    )
    assert everything.closed == pytest.approx(1 / 2)
    assert since.closed == pytest.approx(1)
    assert list(report_of_a_gap().as_dict()["gaps"][0]) == [
        "since",
        "n",
        "losses",
        "closed",
        "parts",
    ]


def test_gap_is_split_into_recipe_youth_and_learning_on() -> None:
    """Each frozen copy on the way from first to live takes the part that is due to it."""
    everything, since = report_of_a_gap().gaps()

    bit = math.log(2)
    assert everything.parts == pytest.approx({"tuning": bit, "learning_on": 2 * bit})
    assert since.parts == pytest.approx({"tuning": bit, "youth": bit, "learning_on": bit})
    text = report_text(report_of_a_gap())
    assert (
        "log loss since  examples   first  adagrad@1  adagrad@2  served    live  gap closed\n"
        "all                    2  2.7726     2.0794          -  1.7329  0.6931       50.0%\n"
        "adagrad@2              1  2.7726     2.0794     1.3863  0.6931  0.6931      100.0%\n"
    ) in text
    assert (
        "over all of it serving closed 50.0%; made of tuning 0.6931, learning on 1.3863\n"
        "since adagrad@2 serving closed 100.0%; made of tuning 0.6931, youth 0.6931, "
        "learning on 0.6931\n"
    ) in text


def test_no_gap_without_the_bound_or_a_first_model() -> None:
    """Without `live` nothing is said of a gap, nor where the first model is as good."""
    assert binary([example(JANUARY_MS, True, 0.5, first=0.5)]).gaps() == []
    report = binary([], decisions=[decision(0, "bootstrap", "sgd@0", first="sgd@0")])
    report.add(example(JANUARY_MS, True, 0.5, first=0.5), {"live": 0.5})

    [gap] = report.gaps()

    assert (gap.closed, gap.parts) == (None, {"learning_on": 0})
    assert "over all of it there is no gap; made of learning on 0.0000\n" in report_text(report)


def test_switches_say_what_they_gained() -> None:
    """A rollback is held to what it undid, a replacement to what it replaced and to its line."""
    report = binary(
        [
            # sgd@2 and its renewal sgd@3 lose against sgd@1, their predecessor.
            *[
                example(
                    JANUARY_MS + 2 * HOUR_MS + i,
                    True,
                    0.5,
                    model=f"sgd@{2 + i}",
                    predecessor=Shadow("sgd@1", 1.0),
                    tree=0.5,
                )
                for i in range(2)
            ],
            # tree@4 wins against sgd@1, and goes on as tree@5 against sgd@5, which is as good.
            example(
                JANUARY_MS + 5 * HOUR_MS,
                True,
                1.0,
                model="tree@4",
                predecessor=Shadow("sgd@1", 0.5),
                sgd=Shadow("sgd@1", 0.5),
            ),
            example(JANUARY_MS + 6 * HOUR_MS, True, 1.0, model="tree@5", sgd=1.0),
            # Another line serves: this one counts no more.
            example(JANUARY_MS + 8 * HOUR_MS, True, 1.0, model="oak@6", sgd=0.0),
        ],
        decisions=[
            decision(0, "refreshed", "sgd@1"),
            decision(1, "refreshed", "sgd@3", "sgd@1"),
            decision(3, "rolled_back", "sgd@1"),
            decision(
                4,
                "replaced",
                "tree@4",
                "sgd@1",
                evidence={"wins": 9, "losses": 0, "e_value": 102.3, "needed": 60.0},
            ),
            decision(7, "replaced", "oak@6", "tree@5"),
        ],
    )

    back, replaced, last = report.switches()

    assert (back.kind, back.model, back.former) == ("rolled_back", "sgd@1", "sgd@3")
    assert (back.n, back.gain, back.line_n, back.line_gain) == (2, 0.25, 0, None)
    assert (replaced.model, replaced.former) == ("tree@4", "sgd@1")
    assert (replaced.n, replaced.gain) == (1, 0.25)
    assert (replaced.line_n, replaced.line_gain) == (2, 0.125)
    assert (last.model, last.former, last.n) == ("oak@6", "tree@4", 0)
    text = report_text(report)
    assert "  Brier that its successors had cost against it: +0.2500 (2 labels)\n" in text
    assert (
        "  evidence: E 102.3 of 60, from 9 blocks won and 0 lost\n"
        "  Brier gained against sgd@1 while that was its predecessor: +0.2500 (1 labels)\n"
        "  Brier gained, tree against sgd over refreshes, until another line served: +0.1250 "
        "(2 labels)\n"
    ) in text
    assert [s["kind"] for s in report.as_dict()["switches"]] == [
        "rolled_back",
        "replaced",
        "replaced",
    ]


def test_ladder_shows_how_long_luck_lasts() -> None:
    """Who does better alternates by day: variance grows up to a day, which is suggested."""
    report = binary(
        [
            example(
                JANUARY_MS + hour * HOUR_MS,
                True,
                0.5,
                tree=1.0 if hour // 24 % 2 else 0.5 - 0.75**0.5 + 0.5,
            )
            for hour in range(40 * 24)
        ]
    )

    [ladder] = report.ladders()

    assert (ladder.champion, ladder.challenger, ladder.pairs) == ("sgd", "tree", 960)
    assert ladder.block_ms == DAY_MS
    # Sums of 24 equal differences: 24, times what taking the mean of 40 blocks costs, 40/39.
    assert (
        "champion  challenger  examples   1h   6h    1d  suggested block\n"
        "sgd       tree             960  1.0  6.0  24.6               1d\n"
    ) in report_text(report)
    assert report.as_dict()["ladders"][0]["block_ms"] == DAY_MS


def test_a_run_too_short_for_a_ladder_shows_none() -> None:
    """Where no length has thirty blocks, nothing is said of luck."""
    report = binary([example(JANUARY_MS + i, True, 0.1 * i, tree=0.5) for i in range(9)])

    assert "how long luck lasts" not in report_text(report)
    assert [each.block_ms for each in report.ladders()] == [None]


def test_evidence_is_kept_by_challenger_with_the_moment_that_decided() -> None:
    """What evaluations say of each challenger is drawn, and so is the replacement itself."""
    report = binary([example(JANUARY_MS, True, 0.5, tree=0.5)])
    for hour, wins in ((1, 0), (2, 8)):
        figures = {"wins": wins, "losses": 0, "e_value": 2.0**wins, "needed": 60.0}
        report.evaluate(evaluation("tree", hour, figures))
    report.evaluate(evaluation("served", 2, None))
    report.decide(
        decision(
            3,
            "replaced",
            "tree@4",
            evidence={"wins": 9, "losses": 0, "e_value": 102.3, "needed": 60.0},
        )
    )
    report.evaluate(evaluation("sgd", 4, {"wins": 0, "losses": 0, "e_value": 1.0, "needed": 60.0}))

    at = [JANUARY_MS + hour * HOUR_MS for hour in range(5)]
    assert report.evidence == {
        "tree": [(at[1], 1.0, 0), (at[2], 256.0, 8), (at[3], 102.3, 9)],
        "sgd": [(at[4], 1.0, 0)],
    }
    assert report.e_value_min == 60


def test_evidence_is_drawn_where_there_is_any(tmp_path: Path) -> None:
    """The picture of the evidence is there with evaluations, resets and all."""
    report = Report("binary", run_of_weeks("binary"), horizon_ms=DAY_MS)
    for hour, wins in ((1, 0), (30, 3), (60, 0), (90, 1)):
        figures = {"wins": wins, "losses": 0, "e_value": 2.0**wins, "needed": 60.0}
        report.evaluate(evaluation("tree", hour, figures))

    assert "evidence.png" in [path.name for path in draw(report, tmp_path)]


def test_delays_are_exact_quantiles() -> None:
    """Of a hundred delays of 1 to 100 h, 50, 90, 99 and 100 are the quantiles."""
    report = binary([example(JANUARY_MS, True, 0.5, delay_ms=h * HOUR_MS) for h in range(1, 101)])

    hours = {name: ms // HOUR_MS for name, ms in report.delays_ms().items()}

    assert hours == {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    assert (
        "labels came 50.0 h after the event (median), 90% within 90.0 h, "
        "99% within 99.0 h, the last after 100.0 h"
    ) in report_text(report)


def test_accounting_is_shown_and_gives_the_share_labelled() -> None:
    """Counts are printed as given; with the predictions, so is how many got a label."""
    report = binary(
        [example(JANUARY_MS, True, 0.5)], accounting={"predictions": 4, "dead letters": 1_000}
    )

    assert report.coverage()["labelled"] == 0.25
    assert "25.00% of the predictions got a label" in report_text(report)
    assert "counted: 4 predictions, 1,000 dead letters" in report_text(report)


def test_text_is_one_aligned_table_per_score() -> None:
    """Every measure has a table with a row per month and a column per answer."""
    report = binary(
        [example(JANUARY_MS, True, 0.75), example(FEBRUARY_MS, False, 0.25)], positive="late"
    )

    assert (
        "Brier    examples  share late  served   prior\n"
        "2013-01         1      100.0%  0.0625       -\n"
        "2013-02         1        0.0%  0.0625  1.0000\n"
        "all             1        0.0%  0.0625  1.0000\n"
    ) in report_text(report)


def test_decisions_other_than_refreshes_are_told() -> None:
    """A replacement is printed with who decided it, when and why."""
    report = binary(
        [example(JANUARY_MS, True, 0.75)],
        decisions=[decision(0, "bootstrap", "sgd@0"), decision(5, "replaced", "adagrad@3")],
    )

    assert "replaced on 2013-01-01 05:00 by ann: adagrad@3 serves (why not)" in report_text(report)
    assert [d["kind"] for d in report.as_dict()["decisions"]] == ["replaced"]


def test_feeding_one_by_one_gives_the_same_report() -> None:
    """Examples and decisions given at once, or as they come with looks between: all the same."""
    examples = [
        example(JANUARY_MS + i * DAY_MS, i % 3 == 0, (i % 7) / 7, tree=0.5) for i in range(60)
    ]
    decisions = [decision(0, "bootstrap", "sgd@0")]
    fed = binary([])
    for one in examples:
        fed.add(one)
        fed.months()
    fed.decide(decisions[0])

    assert fed.as_dict() == binary(examples, decisions=decisions).as_dict()


def test_machine_readable_form_is_plain_json() -> None:
    """What `--format json` prints survives a round trip."""
    report = binary([example(JANUARY_MS, True, 0.75, tree=0.5)], accounting={"predictions": 1})
    body = report.as_dict()

    assert json.loads(json.dumps(body, allow_nan=False)) == body
    assert body["months"][0]["scores"]["tree"]["Brier"] == 0.25


def test_regression_is_scored_by_its_errors() -> None:
    """Numbers have a mean absolute and a root mean squared error, and their own baselines."""
    report = Report(
        "regression",
        [
            example(JANUARY_MS, 1.0, 2.0, delay_ms=1),
            example(JANUARY_MS + 5, 3.0, 0.0, delay_ms=1),
        ],
        horizon_ms=DAY_MS,
    )

    february_free = report.months()[-1]

    assert february_free.n == 1
    assert february_free.true_share is None
    assert february_free.scores["served"] == {"MAE": 3.0, "RMSE": 3.0}
    assert february_free.scores["last"] == {"MAE": 2.0, "RMSE": 2.0}
    assert "MAE" in report_text(report)


def test_classes_are_scored_by_accuracy_and_log_loss() -> None:
    """The likeliest class counts; of equals the one that sorts first."""
    report = Report(
        "multiclass",
        [
            example(JANUARY_MS, "a", {"a": 0.5, "b": 0.5}),
            example(JANUARY_MS + 1, "b", {"a": 0.5, "b": 0.5}),
        ],
        horizon_ms=DAY_MS,
        classes=("a", "b"),
    )

    assert report.months()[-1].scores["served"] == pytest.approx(
        {"accuracy": 0.5, "log loss": math.log(2)}
    )


def test_no_examples_say_so() -> None:
    """An empty run has no figures, no plots and no error."""
    report = binary([])

    assert report_text(report) == "no label met its prediction: nothing to score\n"
    assert report.as_dict()["delays_ms"] == {}
    assert report.months()[-1].n == 0


def run_of_weeks(kind: str) -> list[Example]:
    """Ten weeks of two hundred examples each."""
    answers: dict[str, tuple[Any, Any, Any]] = {
        "binary": (True, False, 0.4),
        "multiclass": ("a", "b", {"a": 0.4, "b": 0.6}),
        "regression": (1.0, 2.0, 1.4),
    }
    one, other, answer = answers[kind]
    return [
        example(
            JANUARY_MS + i * 50 * 60_000,
            one if i % 4 == 0 else other,
            answer,
            delay_ms=(i % 9) * HOUR_MS,
            tree=answer,
            first=answer,
        )
        for i in range(2_000)
    ]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("binary", ["story", "ranking", "precision_recall", "reliability", "label_delay"]),
        ("multiclass", ["story", "confusion", "classes", "reliability", "label_delay"]),
        ("regression", ["story", "forecast", "reliability", "label_delay"]),
    ],
)
def test_plots_are_those_that_make_sense_of_the_task(
    tmp_path: Path, kind: str, names: list[str]
) -> None:
    """PNG files are written to a folder that need not be there, none that means nothing."""
    report = Report(
        kind,
        run_of_weeks(kind),
        [decision(0, "bootstrap", "sgd@0"), decision(30, "replaced", "tree@4")],
        horizon_ms=DAY_MS,
        classes=("a", "b") if kind == "multiclass" else (),
    )

    paths = draw(report, tmp_path / "made" / "for it")

    assert [path.stem for path in paths] == names
    for path in paths:
        head = path.read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", head[16:24])
        assert width > 600
        assert height > 300


def test_plots_of_a_short_run_do_not_fail(tmp_path: Path) -> None:
    """One example is too few for a curve, and no error."""
    assert ["story.png", "label_delay.png"] == [
        path.name for path in draw(binary([example(JANUARY_MS, True, 0.5)]), tmp_path)
    ]
    assert draw(binary([]), tmp_path) == []


def test_without_matplotlib_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures are there without matplotlib; only who asks for plots is told what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    report = binary([example(JANUARY_MS, True, 0.5)])

    with pytest.raises(UsageError) as error:
        draw(report, tmp_path)

    assert str(error.value) == 'plots need matplotlib: pip install "stream-ml[demo]"'
    assert "ROC AUC" in report_text(report)
