"""Addresses of object stores: their parts, and the region of a bucket."""

import os
import re
import urllib.error
import urllib.request
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from dptmat.errors import UserError

_S3 = ("s3", "s3a")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_ENDPOINTS = (
    *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    *("GOOGLE_BASE_URL", "AZURITE_BLOB_STORAGE_URL"),
)
_PLAIN = ("AWS_", "AZURE_")  # of Google's some hold a whole file
_TOKEN = re.compile(r"[?&](sig|sv|se|token|x-amz-\w+|x-goog-\w+|awsaccesskeyid|signature)=", re.IGNORECASE)


class Address(NamedTuple):
    """A URL, taken apart."""

    scheme: str
    place: str  # bucket, container or host
    prefix: str  # without a slash at its ends; as it stands in keys, but for addresses of the web

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}" + (f"/{self.prefix}" if self.prefix else "")

    @property
    def provider(self) -> str:
        """Return whose credentials it takes: AWS, GOOGLE, AZURE or, of a web server, ""."""
        if self.scheme.startswith("http"):
            ends = {"amazonaws.com": "AWS", "r2.cloudflarestorage.com": "AWS", "windows.net": "AZURE"}
            return next((name for end, name in ends.items() if self.place.endswith(end)), "")
        return "AWS" if self.scheme in _S3 else "GOOGLE" if self.scheme == "gs" else "AZURE"

    @property
    def encoded(self) -> str:
        """Return it as obstore takes it. What is encoded in an address of the web already stays as it is."""
        safe = "/%:@!$&'()*+,;=~" if self.scheme.startswith("http") else "/"
        return f"{self.scheme}://{self.place}" + (f"/{quote(self.prefix, safe=safe)}" if self.prefix else "")


def parse_address(url: str, parameter: str) -> Address:
    """Take a URL apart.

    Raises:
        UserError: It names no bucket, holds a password or a query, such as a token, or a folder without a name. The
            message calls it ``parameter`` and shows no more than is safe.
    """
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    place, _, prefix = rest.partition("/")
    user, at, host = place.rpartition("@")
    web = scheme.startswith("http")
    secret = at and (web or ":" in user or scheme not in ("abfs", "abfss"))
    query = any(mark in (rest if web else place) for mark in "?#") or _TOKEN.search(rest)
    if secret or query:
        shown = f"{scheme}://{host.partition('?')[0]}"
        raise UserError(
            f"`{parameter}` {shown}... holds a user, a password, a query or a token, which would stand in logs; "
            "give the plain address, and credentials in environment variables such as AZURE_STORAGE_SAS_TOKEN"
        )
    if not place:
        what = "host" if web else "bucket"
        raise UserError(f"`{parameter}` {url} names no {what}; write {scheme}://{what}/folder")
    prefix = prefix.strip("/")
    if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix or not prefix.isprintable():
        raise UserError(f"`{parameter}` {url!r} has a folder whose name is empty, . or .. or no text; leave it out")
    return Address(scheme, place, prefix)


def check_environment(address: Address, parameter: str) -> None:
    """Refuse variables of the environment at which obstore would panic: endpoints and credentials that are none.

    Raises:
        UserError: There is one; the message does not hold its value.
    """
    for name, value in sorted(os.environ.items()):
        if name in _ENDPOINTS and name.startswith(address.provider or "-") and not _is_endpoint(value):
            raise UserError(
                f"`{parameter}` {address}: the variable {name} is no address; "
                "write http:// or https:// and a host, or unset it"
            )
        if name.startswith(_PLAIN) and name.startswith(address.provider or "-") and not _is_plain(value):
            raise UserError(
                f"`{parameter}` {address}: the variable {name} holds a line break, or a blank at an end; set it anew"
            )


def _is_endpoint(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 0) >= 0
    except ValueError:  # of the port, or of a bracket
        return False


def _is_plain(value: str) -> bool:
    return value == value.strip() and value.isprintable()


def is_bucket(address: Address) -> bool:
    """Tell whether an address has a bucket of S3 in the place of a host."""
    return address.scheme in _S3


def given_region() -> str:
    """Return the region that the environment names, or ""."""
    return next((os.environ[name] for name in _REGIONS if os.environ.get(name)), "")


def find_region(bucket: str) -> str:
    """Ask S3 without credentials where a bucket lies; "" where it does not say within 2 seconds."""
    endpoint = next((os.environ[name] for name in _ENDPOINTS[:3] if os.environ.get(name)), "https://s3.amazonaws.com")
    request = urllib.request.Request(f"{endpoint.rstrip('/')}/{quote(bucket)}", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            headers = answer.headers
    except urllib.error.HTTPError as error:  # refused, or sent to the region: it says where all the same
        headers = error.headers
    except (OSError, ValueError):
        return ""
    return headers.get("x-amz-bucket-region") or ""


def has_profiles() -> bool:
    """Tell whether there are profiles of the AWS command line, one of which may be used where none is named."""
    files = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}
    return any(os.path.exists(os.path.expanduser(os.environ.get(name) or path)) for name, path in files.items())
