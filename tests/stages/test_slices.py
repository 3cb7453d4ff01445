"""Slices through the whole loop: who is better on the whole may be worse for a few."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import stream_ml as sml
from stream_ml.shell.views.drift import read_drift
from stream_ml.testing import CRASH, Driver
from tests.stages.test_promotion import DAY, MINUTE, START, ask, contest, kinds

if TYPE_CHECKING:
    from collections.abc import Iterator

countries = replace(
    contest,
    events=sml.Events(
        key="who",
        fields={"x": float, "country": str, "is_new": bool},
        lateness=0,
        breadth=1,
    ),
    slices=[
        sml.Slice("abroad", country=("it", "fr")),
        sml.slice_by("country", top=2),
        sml.slice_by("is_new"),
    ],
)


def world(first: int, last: int, harmed: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Minutes in which x tells, mostly; of one country it tells the contrary."""
    events, labels = [], []
    for minute in range(first, last):
        ts, rand = START + minute * MINUTE, random.Random(minute)
        x = rand.uniform(-1, 1)
        country = rand.choices(("no", "se", "it", "fr", "de"), (8, 4, 2, 2, 1))[0]
        body = {"x": x, "country": country, "is_new": minute % 2 == 0}
        events.append({"event_id": f"e{minute}", "ts": ts, "who": "all", **body})
        label = ((x > 0) == (country not in harmed)) != (rand.random() < 0.1)
        labels.append({"event_id": f"e{minute}", "ts": ts + 5 * MINUTE, "label": label})
    return events, labels


def run(pipeline: sml.Pipeline, harmed: str, *, crash: int = 0) -> Driver:
    """Four days of that; the worker dies after some minutes, if at all."""
    driver = Driver(pipeline)
    events, labels = world(0, 4 * DAY, harmed)
    driver.feed([*events[:crash], CRASH, *events[crash:]] if crash else events, labels)
    return driver


@pytest.fixture(scope="module")
def harmed() -> Iterator[Driver]:
    """A run in which the challenger is better on the whole, and worse abroad."""
    with run(countries, "it fr") as driver:
        yield driver


def verdict(driver: Driver) -> tuple[str, str]:
    """The last verdict on the challenger."""
    evidence = [e for e in driver.read("evaluations") if e["model"] == "better"][-1]["evidence"]
    return evidence["verdict"], evidence["verdict_reason"]


def test_who_is_worse_on_a_slice_is_not_promoted(harmed: Driver) -> None:
    """The evidence suffices, and the challenger is rejected, with the slice and its figures."""
    assert ["bootstrap"] == kinds(harmed)
    kind, reason = verdict(harmed)
    assert "reject" == kind
    assert reason.startswith("slice abroad: 0.")
    assert "against the champion's 0.2" in reason
    assert reason.endswith("per example; 10% more is borne")


@pytest.mark.parametrize("slices", [(), countries.slices])
def test_where_no_slice_is_harmed_the_better_one_is_promoted(slices: Any) -> None:
    """So is one that is worse for a few whom nobody has declared."""
    driver = run(replace(countries, slices=slices), "" if slices else "it fr")
    assert ["bootstrap", "replaced"] == kinds(driver)
    driver.close()


def test_a_wider_margin_bears_what_a_slice_is_harmed() -> None:
    """How much more a challenger may lose on a slice is declared."""
    wide = replace(contest.promotion, slice_margin=9.0)
    driver = run(replace(countries, promotion=wide), "it fr")
    assert ["bootstrap", "replaced"] == kinds(driver)
    driver.close()


def test_scores_by_slice_are_written_of_every_model_and_of_few_values() -> None:
    """Of a text the most frequent values and all others; of a flag both; predictions name all."""
    driver = run(countries, "")
    [prediction] = [p for p in driver.read("predictions") if p["event_id"] == "e0"]
    assert {"is_new=true"} < set(prediction["slices"])
    newest = {e["model"]: e["slices"] for e in driver.read("evaluations")}
    names = ["abroad", "country=*", "country=no", "country=se", "is_new=false", "is_new=true"]
    assert {"served", "plain", "first", "prior"} <= newest.keys()
    assert names == list(newest["served"])
    served = newest["served"]["is_new=true"]
    assert 2_000 <= served["n"] <= 4 * DAY / 2
    # Before there was a champion that answers, the fallback was served.
    assert 0.9 < served["coverage"] < 1.0
    assert (
        served["scores"]["fading"]["brier"]
        < newest["prior"]["is_new=true"]["scores"]["fading"]["brier"]
    )
    driver.close()


def test_slices_go_on_where_a_worker_dies(harmed: Driver) -> None:
    """Scores, evidence and the values that were chosen are those of an uninterrupted run."""
    with run(countries, "it fr", crash=700) as driver:
        for topic in ("evaluations", "registry"):
            assert harmed.read(topic) == driver.read(topic)


def test_an_operator_is_refused_what_harms_a_slice_until_that_is_declared_no_more() -> None:
    """In gated mode, with the same words; what was known of the slice goes with it."""
    gated = replace(contest.promotion, mode="gated")
    driver = run(replace(countries, promotion=gated), "it fr")
    [answer] = ask(driver, "promote", "c1", model="better", expect="plain")
    assert "refused" == answer["kind"]
    assert "better is rejected: slice abroad: " in answer["reason"]
    driver.declare(replace(countries, slices=countries.slices[2:]))
    driver.feed(*world(4 * DAY, 5 * DAY, "it fr"))
    assert ["bootstrap", "refused", "replaced"] == kinds(driver)
    newest = [e for e in driver.read("evaluations") if e["model"] == "served"][-1]
    assert ["is_new=false", "is_new=true"] == list(newest["slices"])
    driver.close()


def test_drift_shows_the_last_blocks_of_models_slices_and_labels(harmed: Driver) -> None:
    """Each is of the examples of its hour, beside what is usual."""
    view = read_drift(harmed.log)
    usual, *blocks = view.blocks
    assert usual["start"] is None
    assert 6 == len(blocks)
    examples = harmed.read("examples")
    for block in blocks:
        inside = [e for e in examples if block["start"] <= e["label_ts"] < block["end"]]
        abroad = [e for e in inside if "abroad" in e["slices"]]
        for name, part in (("served", inside), ("slice abroad", abroad)):
            loss = sum((e["prediction"] - e["label"]) ** 2 for e in part) / len(part)
            assert block["scores"][name]["brier"] == pytest.approx(loss)
            assert len(part) == block["scores"][name]["n"]
    assert {"prior", "first", "better", "plain"} & set(block["scores"]) >= {"prior", "better"}
    first, *labels = view.labels
    assert first["labelled"] == pytest.approx(1.0)
    assert [(60, 1.0)] * 5 == [
        (e["predictions"], e["labelled"]) for e in labels if "labelled" in e
    ][:5]
    assert {5 * MINUTE} == {round(e["p50"], -3) for e in labels if "p50" in e}
