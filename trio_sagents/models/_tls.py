"""The TLS settings that clients of this package share."""

import functools
import ssl

import httpx2


@functools.cache
def tls_context() -> ssl.SSLContext:
    """Return the process's TLS context, made at the first call, because reading the certificates takes about 30 ms."""
    return httpx2.create_ssl_context()
