"""Where a notification goes: an address that takes it by POST, or a program that reads it.

Each try is bounded in time. What the other side says is not read: its status is the answer.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import urllib.error
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from stream_ml.shell.settings.settings import environment_of_others

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DeliveryError", "Program", "Recipient", "Webhook"]

POST_S = 10.0
COMMAND_S = 30.0
# The receiver has read it, and says that it will never take it.
UNACCEPTABLE = frozenset({400, 413, 415, 422})


class DeliveryError(Exception):
    """Raised when a try has failed; `is_final` where the receiver will never take it."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


class Recipient(Protocol):
    """Somewhere a notification goes."""

    def deliver(self, body: bytes) -> None:
        """Deliver it once.

        Raises:
            DeliveryError: it was not taken.
        """


class Webhook:
    """An address that takes notifications by POST.

    Args:
        url: http or https. No redirect is followed, for that would be another address.
        timeout_s: for connecting, and for each wait for an answer.
    """

    def __init__(self, url: str, timeout_s: float = POST_S) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._opener = urllib.request.build_opener(_NoRedirect())

    def __str__(self) -> str:
        # The rest of an address may hold a secret.
        return f"webhook at {urlsplit(self._url).hostname}"

    def deliver(self, body: bytes) -> None:
        """Post it; see `Recipient.deliver`."""
        request = urllib.request.Request(  # noqa: S310 - http or https, as declared
            self._url,
            body,
            {"Content-Type": "application/json", "User-Agent": "stream-ml"},
            method="POST",
        )
        try:
            with self._opener.open(request, timeout=self._timeout_s):
                pass
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"it answered {error.code}"
            raise DeliveryError(reason, is_final=error.code in UNACCEPTABLE) from None
        except urllib.error.URLError as error:
            raise DeliveryError(f"it does not answer: {error.reason}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise DeliveryError(f"it does not answer: {error!r}") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """None: the answer is an error."""


class Program:
    """A program that reads a notification from its standard input, and exits with 0.

    It is given none of our environment variables: a key of ours is not its business.

    Args:
        words: the program and its arguments.
        timeout_s: after how long it is ended, with all that it has started in its group.
    """

    def __init__(self, words: Sequence[str], timeout_s: float = COMMAND_S) -> None:
        self._words = list(words)
        self._timeout_s = timeout_s

    def __str__(self) -> str:
        return f"command {self._words[0]}"

    def deliver(self, body: bytes) -> None:
        """Run it; see `Recipient.deliver`."""
        try:
            process = subprocess.Popen(  # noqa: S603 - the words that were declared, no shell
                self._words,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment_of_others(),
                process_group=0,
            )
        except (OSError, ValueError) as error:
            raise DeliveryError(f"it does not start: {error}") from None
        try:
            process.communicate(body, timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdin is not None:
                with suppress(OSError):  # what it has not read is nobody's
                    process.stdin.close()
            raise DeliveryError(f"it took more than {self._timeout_s:g} s") from None
        if process.returncode:
            raise DeliveryError(f"it ended with exit code {process.returncode}")
