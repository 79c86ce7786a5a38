"""TLS with certificates on both sides, as the DICOM profile BCP 195 asks (PS3.15, B.9 and following)."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from cxredge.errors import ConfigError
from cxredge.logs import log_event


class LoggedSocket(ssl.SSLSocket):
    """A TLS connection that logs why there is none: pynetdicom tells only that."""

    def do_handshake(self, block: bool = False) -> None:
        """Agree with the peer.

        Raises:
            ssl.SSLError: it is not to be trusted, does not trust this node, or speaks no TLS.
        """
        try:
            super().do_handshake(block)
        except ssl.SSLError as error:
            cause = getattr(error, "verify_message", "") or error.reason or "it went away"
            log_event("tls_failed", logging.WARNING, cause=cause)
            raise


@dataclass(frozen=True)
class TlsFiles:
    """PEM files.

    Attributes:
        certificate: of this node, with the chain.
        key: its private key, without a passphrase.
        authority: certificates of who signs for peers; a peer without one of theirs is refused.
    """

    certificate: Path
    key: Path
    authority: Path

    def server_context(self) -> ssl.SSLContext:
        """For peers that connect.

        Raises:
            ConfigError: a file is missing, or not what it should be.
        """
        return self._loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def client_context(self) -> ssl.SSLContext:
        """For the peer to which results go; its certificate has to name the host.

        Raises:
            ConfigError: a file is missing, or not what it should be.
        """
        return self._loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _loaded(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.sslsocket_class = LoggedSocket
        try:
            context.load_cert_chain(self.certificate, self.key, password=no_passphrase)
            context.load_verify_locations(self.authority)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            files = f"{self.certificate}, {self.key}, {self.authority}"
            raise ConfigError(f"TLS cannot be set up with {files}: {error}") from error
        return context


def no_passphrase() -> str:
    """Refuse a key that has a passphrase, where OpenSSL would ask for it on the terminal."""
    raise ValueError("the key has a passphrase; remove it, and keep the file readable by the node's user only")
