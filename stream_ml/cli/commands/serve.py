"""`serve`: predictions, views and commands by HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.arguments import add_metrics, rate, utf8, whole_number
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]

HOST, PORT = "127.0.0.1", 8_000
ROLES = ("read", "publish", "operate")
PORT_MAX = 65_535
LIMITS = {
    "--predict-seconds": (rate, "predict_s", "SECONDS", "how long a prediction is waited for (5)"),
    "--rate": (rate, "rate", "N", "requests a second of one caller (2000)"),
    "--concurrency": (whole_number(1), "concurrency", "N", "requests at work at once (1024)"),
    "--streams": (whole_number(0), "streams", "N", "open streams of events (256)"),
    "--batch": (whole_number(1), "batch", "N", "events or labels in one request (500)"),
    "--body-bytes": (whole_number(1), "body_bytes", "N", "bytes in one request (1048576)"),
}


def run(arguments: Namespace, settings: Settings) -> None:
    """Serve until asked to stop."""
    from stream_ml.cli.execution import serve  # noqa: PLC0415 - loads what the command needs

    serve.run(arguments, settings)


def _add_arguments(parser: ArgumentParser) -> None:
    add_metrics(parser)
    parser.add_argument(
        "--host",
        type=utf8,
        default=HOST,
        help=f"the address to listen at ({HOST}: this machine alone); another wants --tokens",
    )
    parser.add_argument(
        "--port",
        type=whole_number(0, PORT_MAX),
        default=PORT,
        help=f"the port to listen at, 0 for any that is free ({PORT})",
    )
    parser.add_argument(
        "--tokens",
        metavar="FILE",
        help="who may do what: TOML that only its owner may read, see docs/http.md (else "
        "STREAM_ML_HTTP_TOKENS)",
    )
    parser.add_argument(
        "--anonymous",
        nargs="*",
        choices=ROLES,
        metavar="ROLE",
        help="what whoever has no token may do, of read, publish and operate (default: read and "
        "publish on loopback where there are no tokens, else nothing)",
    )
    parser.add_argument(
        "--host-name",
        action="append",
        default=[],
        type=utf8,
        metavar="NAME",
        help="a name that requests may be for, beside this machine's own; on loopback others are "
        "refused",
    )
    parser.add_argument(
        "--isolation",
        choices=("committed", "uncommitted"),
        default="committed",
        help="on Kafka: answer with predictions that are committed (the default), or as soon as "
        "they are written, and maybe never true",
    )
    for option, (kind, name, metavar, words) in LIMITS.items():
        parser.add_argument(option, dest=name, type=kind, metavar=metavar, help=words)


COMMAND = Subcommand(
    name="serve",
    help="predictions, views and commands by HTTP",
    description=(
        "Serves HTTP beside the workers of `up`, on either log: an event that is posted is\n"
        "published and answered with its prediction; labels are published; predictions, decisions\n"
        "and alerts are streamed; status, models, evidence, drift and audit are read; commands\n"
        "are given. It takes requests of this machine alone unless --host says otherwise, and\n"
        "then wants tokens. The API is described at /v1/openapi.json. Needs the extra `web`."
    ),
    examples=(
        UsageExample(
            "stream-ml --pipeline shop:fraud serve",
            "for this machine: read and publish, at http://127.0.0.1:8000",
        ),
        UsageExample(
            "stream-ml --pipeline shop:fraud --broker kafka://10.0.0.1:9092 serve --host 0.0.0.0 "
            "--tokens tokens.toml",
            "for others, who show a token each",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
)
