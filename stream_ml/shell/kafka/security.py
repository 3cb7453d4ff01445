"""Options that make connections safe, in the words of each client library.

Brokers' certificates and their names are checked wherever there is TLS; there is no setting that
switches a check off.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from stream_ml.errors import UsageError

if TYPE_CHECKING:
    from stream_ml.shell.kafka.cluster import Security

__all__ = ["async_options", "client_options", "native_options"]


def client_options(security: Security) -> dict[str, Any]:
    """Options for kafka-python's clients, beside the addresses.

    Raises:
        UsageError: the CA file is not there, or holds no certificate.

    >>> from stream_ml.shell.kafka.cluster import Security
    >>> client_options(Security())
    {'security_protocol': 'PLAINTEXT'}
    """
    return _options(security)


def async_options(security: Security) -> dict[str, Any]:
    """Options for aiokafka's clients, beside the addresses.

    Raises:
        UsageError: as `client_options`.

    >>> from stream_ml.shell.kafka.cluster import Security
    >>> ana = Security(mechanism="SCRAM-SHA-512", username="ana", password="secret")
    >>> sorted(async_options(ana))
    ['sasl_mechanism', 'sasl_plain_password', 'sasl_plain_username', 'security_protocol']
    """
    return _options(security)


def native_options(security: Security) -> dict[str, Any]:
    """Options for librdkafka's clients, beside the addresses.

    Raises:
        UsageError: as `client_options`.

    >>> from stream_ml.shell.kafka.cluster import Security
    >>> ana = Security(mechanism="PLAIN", username="ana", password="secret")
    >>> sorted(native_options(ana))
    ['sasl.mechanism', 'sasl.password', 'sasl.username', 'security.protocol']
    """
    options: dict[str, Any] = {"security.protocol": security.protocol}
    if security.tls:
        _context(security.ca_file)  # it would take a file without certificates
        # It would look for those of the system where it was built.
        ca_file = security.ca_file or ssl.get_default_verify_paths().cafile
        if ca_file is not None:
            options["ssl.ca.location"] = ca_file
    if security.mechanism is not None:
        options["sasl.mechanism"] = security.mechanism
        options["sasl.username"] = security.username
        options["sasl.password"] = security.password
    return options


def _options(security: Security) -> dict[str, Any]:
    # The two libraries have agreed on the names, so far.
    options: dict[str, Any] = {"security_protocol": security.protocol}
    if security.tls:
        options["ssl_context"] = _context(security.ca_file)
    if security.mechanism is not None:
        options["sasl_mechanism"] = security.mechanism
        options["sasl_plain_username"] = security.username
        options["sasl_plain_password"] = security.password
    return options


def _context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # an `ssl.SSLError` is one: a file without certificates
        raise UsageError(
            f"{ca_file}: expected the certificates, in PEM, of those who vouch for the brokers: "
            f"{error.strerror or error}"
        ) from error
