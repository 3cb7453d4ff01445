"""Commands on a cluster: carried out once, where they were meant, whatever others call theirs."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml import client
from stream_ml.codec import encode_command
from stream_ml.records import Command, Output
from stream_ml.shell.kafka.log import KafkaLog
from stream_ml.shell.log.port import whole_piece
from stream_ml.stages.learn import Learn
from tests.kafka.test_loop import until_written
from tests.kafka.test_workers import DECLARATION, KEY
from tests.kafka.world import DEADLINE_S, House, outputs_of, place, publish
from tests.shop import shop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.shell.processes import Terminal

KEYS = {"ana": b"a" * 32, "ola": b"o" * 32}
KEYRING = f"""
[operators.ana]
key = "{KEYS["ana"].hex()}"
role = "operator"
[operators.ola]
key = "{KEYS["ola"].hex()}"
role = "observer"
"""
HOUR_MS = 3_600_000


def a_command(operator: str, command_id: str = "deploy-42", **members: Any) -> Command:
    """To pause, by an operator."""
    given = {"kind": "pause", "ts": time.time_ns() // 1_000_000, "actor": "bob", **members}
    return Command(command_id=command_id, operator=operator, reason="to see", **given)


def judging(house: House, stack: ExitStack) -> Terminal:
    """A worker of evaluate alone."""
    keyring = house.folder / "keyring.toml"
    keyring.write_text(KEYRING)
    keyring.chmod(0o600)
    return stack.enter_context(house.worker("evaluate", STREAM_ML_KEYRING=str(keyring)))


def test_commands_of_other_places_operators_and_times(kafka_broker: str, tmp_path: Path) -> None:
    """What was meant for elsewhere does nothing here, nobody blocks another, and all is told."""
    with place(kafka_broker, 1, "evaluate") as cluster, ExitStack() as stack:
        house = House(tmp_path, cluster, DECLARATION)
        asyncio.run(publish(cluster, "models", 0, Learn(shop, KEY).start()))
        worker = judging(house, stack)
        asyncio.run(until_written(cluster, registry=1))
        log = stack.enter_context(KafkaLog(cluster))

        def asked(command: Command) -> Any:
            key = KEYS[command.operator]
            return client.command(log, command, key, verifying_key=KEY, timeout_s=DEADLINE_S)

        def sent(*values: bytes | None) -> None:
            records = [Output("commands", None, value) for value in values]
            asyncio.run(publish(cluster, "commands", 0, records))

        here = {"pipeline": cluster.pipeline, "log": log.identity}
        foreign = [here | {"log": "elsewhere"}, here | {"pipeline": "elsewhere"}, {}]
        sent(*(encode_command(a_command("ana", **each), KEYS["ana"]) for each in foreign))
        observed, paused = asked(a_command("ola")), asked(a_command("ana"))
        old = asked(a_command("ana", "old", ts=a_command("ana").ts - 2 * HOUR_MS))
        worker.process.kill()
        worker.process.wait()
        judging(house, stack)
        # All that ever lay there, again, before a successor that knows only what was written down.
        sent(*(record.value for record in log.read("commands", 0, 0, 100)))
        resumed = asked(a_command("ana", "go-on", kind="resume"))
        written = asyncio.run(outputs_of(cluster))

    assert (observed.kind, observed.signed_by) == ("refused", "ola")
    assert (paused.kind, paused.signed_by, paused.actor) == ("paused", "ana", "bob")
    assert (paused.log, paused.command_id) == (here["log"], "deploy-42")
    assert abs((paused.received_ms or 0) - (paused.given_ms or 0)) < HOUR_MS
    assert old.kind == "refused"
    assert f"given, {old.given_ms}, and when the log took it in, {old.received_ms}" in old.reason
    assert resumed.kind == "resumed"
    kinds = [orjson.loads(each.value or b"")["kind"] for each in written["registry"]]
    assert kinds == ["bootstrap", "refused", "paused", "refused", "resumed"]
    letters = [orjson.loads(each.value or b"") for each in written["dead-letters"]]
    assert {each["reason"] for each in letters} == {"foreign_command"}
    assert [each["path"] for each in letters] == ["$.log", "$.pipeline", "$.pipeline"] * 2


# The declaration, with a line that is taught in batches.
BATCHED = f"""{DECLARATION}
from tests.mini_batches import Steps
declared = dataclasses.replace(declared, models={{**declared.models, "steps": Steps(8)}})
"""


def test_a_line_is_changed_once_whoever_dies(kafka_broker: str, tmp_path: Path) -> None:
    """Learn reads the decision off the registry, in the transaction that holds its learners."""
    with place(kafka_broker, 1, "learn") as cluster, ExitStack() as stack:
        house = House(tmp_path, cluster, BATCHED)
        judging(house, stack)
        learning = stack.enter_context(house.worker("learn"))
        asyncio.run(until_written(cluster, registry=1))
        log = stack.enter_context(KafkaLog(cluster))

        def asked(command_id: str, **members: Any) -> Any:
            given = {"kind": "restart", "model": "bayes", **members}
            command = a_command("ana", command_id, **given)
            return client.command(
                log, command, KEYS["ana"], verifying_key=KEY, timeout_s=DEADLINE_S
            )

        def learned_of(number: int, batches: dict[str, Any] | None = None) -> dict[str, Any]:
            """The state of learn, once it has read the decision of that number."""
            deadline = time.monotonic() + DEADLINE_S
            while True:
                state = orjson.loads(whole_piece(log, "learn-0", "") or b"{}")
                is_restarted = state.get("restarted_by") == {"bayes": number}
                if is_restarted and state.get("batches") == batches:
                    return dict(state)
                assert time.monotonic() < deadline, state

        first = asked("first")
        state = learned_of(first.number)
        learning.process.kill()
        learning.process.wait()
        stack.enter_context(house.worker("learn"))
        third = asked("third", kind="batch", model="steps", details={"batch": 3})
        second = asked("second")
        again = learned_of(second.number, {"steps": [3, third.number, None, []]})

    assert ("restarted", "restarted") == (first.kind, second.kind)
    assert ({"line": "bayes"}, first.number + 2) == (first.evidence, second.number)
    assert ({"line": "steps", "batch": 3}, ["steps"]) == (third.evidence, again["batches_due"])
    assert (first.number + 1, second.number + 1) == (state["decisions"], again["decisions"])
