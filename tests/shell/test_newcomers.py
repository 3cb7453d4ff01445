"""Lines that are declared on a running log are told of before they contend."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from cli_toy import outputs, toy

from stream_ml.cli.main import main
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.stages.latecomers import due_n

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

KEY = bytes(32)
EXAMPLES = 990


def test_a_line_that_is_taught_is_told_of_with_how_far_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`models` shows what it has learned of what there is, and from when on it contends."""
    path = tmp_path / "log.sqlite"
    alone = replace(toy, models={"plain": toy.models["plain"]})
    command = ["--broker", f"sqlite:{path}", "models"]
    with SqliteLog.create(path) as log:
        log.append(outputs(EXAMPLES + 10))
        with Runner(log, alone, KEY) as runner:
            runner.run()
        with Runner(log, toy, KEY) as runner:
            runner.commit(checkpoint=True)
            main([*command, "--format", "json"])
            first = json.loads(capsys.readouterr().out)["newcomers"]
            while runner.catch_up():
                pass
            runner.commit(checkpoint=True)
    main([*command, "--format", "json"])
    last = json.loads(capsys.readouterr().out)["newcomers"]
    main(command)

    assert [("scaled", EXAMPLES, due_n(EXAMPLES))] * 2 == [
        (each["line"], each["examples"], each["due_examples"]) for each in (*first, *last)
    ]
    assert [(0, False), (EXAMPLES, True)] == [
        (each["learned"], each["is_level"]) for each in (*first, *last)
    ]
    assert (
        f"scaled has learned all {EXAMPLES} examples that there are for it, and contends from the "
        f"first refresh on with {due_n(EXAMPLES):,} examples or after "
    ) in capsys.readouterr().out
