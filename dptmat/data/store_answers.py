"""What an object store has answered, in one line of our own: what it says itself is long, and may hold credentials."""

import errno
import os
import re
from typing import NamedTuple

from dptmat.data.storage import cut_short
from dptmat.data.store_address import Address
from dptmat.errors import StoreAwayError, UserError, few, first_line

# What S3, Google and Azure answer where credentials are at fault, and not the right to one object.
_OF_CREDENTIALS = frozenset(
    (
        *("SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"),
        *("RequestTimeTooSkewed", "RequestExpired", "InvalidSecurity", "NotSignedUp", "AccountProblem"),
        *("AuthenticationFailed", "InvalidAuthenticationInfo", "AuthenticationRequired", "NoAuthenticationInformation"),
        *("AuthorizationFailure", "UserProjectMissing"),
    )
)
_OF_REGION = frozenset(("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"))
_METADATA_SERVICE = re.compile(r"https?://[^/\s]+/(latest/(api/token|meta-data)|computeMetadata|metadata/identity)/?")
# By whose credentials an address is opened: what to set, and what to do instead.
_VARIABLES = {
    "AWS": (
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ", or AWS_PROFILE with boto3 installed, or AWS_SKIP_SIGNATURE=true for what is public",
    ),
    "GOOGLE": (
        "GOOGLE_APPLICATION_CREDENTIALS",
        ", or log in by gcloud auth application-default login, or GOOGLE_SKIP_SIGNATURE=true for what is public",
    ),
    "AZURE": (
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
        ", or AZURE_SKIP_SIGNATURE=true for what is public",
    ),
    "": ("", ""),
}


class Answer(NamedTuple):
    """What the text of an error of obstore says."""

    kind: str  # of obstore's error
    status: int  # of HTTP, 0 where none came
    code: str  # the provider's own, "" where there is none
    host: str
    connection: str  # what went wrong before there was an answer

    @property
    def is_of_credentials(self) -> bool:
        return self.code in _OF_CREDENTIALS

    @property
    def is_of_region(self) -> bool:
        return self.code in _OF_REGION or 300 < self.status < 304 or self.connection == "redirect"

    @property
    def is_of_bucket(self) -> bool:
        return self.code in ("NoSuchBucket", "ContainerNotFound", "AccountNotFound")

    def __str__(self) -> str:
        if self.connection:
            return {
                "credentials": "no credentials were found",
                "dns": f"there is no host {self.host}",
                "timeout": f"{self.host} does not answer in time",
                "redirect": f"{self.host} sends elsewhere",
            }.get(self.connection, f"there is no connection to {self.host}")
        said = f"{self.status} {self.code}".strip() if self.status else self.kind
        return f"{self.host or 'the store'} answers {said}"


def read_answer(error: BaseException) -> Answer:
    """Take an error of obstore apart."""
    text = str(error)
    status = re.search(r"status code: (\d{3})", text)
    code = re.search(r"<Code>(\w{1,60})</Code>", text) or re.search(r'"reason": *"(\w{1,60})"', text)
    host = re.search(r"performing [A-Z]+ https?://(?:[^/@\s]*@)?([^/?\s]+)", text)
    connection = ""
    if _METADATA_SERVICE.search(text) or "az login" in text:
        connection = "credentials"
    elif "redirect without LOCATION" in text:
        connection = "redirect"
    elif not status and "HttpError {" in text:
        names = {"dns error": "dns", "kind: Timeout": "timeout", "TimedOut": "timeout"}
        connection = next((name for sign, name in names.items() if sign in text), "connect")
    return Answer(
        type(error).__name__,
        int(status[1]) if status else 0,
        code[1] if code else "",
        host[1] if host else "the store",
        connection,
    )


def is_beyond_end(error: BaseException) -> bool:
    """Tell whether a range was asked for that begins where its file ends, or beyond."""
    return read_answer(error).status == 416 or "Wanted range starting at" in str(error)


def os_error(error: BaseException, file: str) -> OSError:
    """Return as an `OSError` what obstore has raised for a file; what says nothing of it, as a `StoreAwayError`."""
    answer = read_answer(error)
    if answer.connection or answer.is_of_credentials or answer.is_of_bucket:
        return StoreAwayError(f"{file} cannot be reached: {answer}")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file)
    if answer.kind == "AlreadyExistsError":
        return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), file)
    if answer.status in (401, 403):
        return PermissionError(errno.EACCES, f"{os.strerror(errno.EACCES)}: {answer}", file)
    if "non-partial response" in str(error) or "Range request not supported" in str(error):
        return OSError(errno.ENOTSUP, "its server sends whole files only, and no ranges of bytes", file)
    if "Content-Length" in str(error):
        return OSError(errno.ENOTSUP, "its server does not say how long it is", file)
    if got := re.search(r"Requested (\d+)\.\.(\d+), got \d+\.\.(\d+)", str(error)):
        return cut_short(file, int(got[1]), int(got[2]) - int(got[1]), int(got[3]) - int(got[1]))
    if answer.status in (405, 501) or answer.kind in ("NotSupportedError", "NotImplementedError"):
        return OSError(errno.ENOTSUP, f"not possible there: {answer}", file)
    if isinstance(error, ValueError) or answer.kind == "InvalidPathError":
        return OSError(errno.EINVAL, "names with //, /../ or a control character cannot be asked for", file)
    return StoreAwayError(f"{file} cannot be reached: {answer}")


def explain(error: BaseException, address: Address, parameter: str, unread: list[str]) -> UserError:
    """Return what keeps a store from being opened, and what a user can do about it, in one line.

    Args:
        error: What obstore has raised.
        address: The store.
        parameter: How messages call it.
        unread: Variables of the environment that look as if they were meant for the provider, and are not read.
    """
    answer = read_answer(error)
    variables, login = _VARIABLES[address.provider]
    what, remedy = str(answer), "see whether the address is right, and try again"
    if answer.connection == "credentials" or answer.kind == "GenericError" and "Missing" in str(error):
        what = "no credentials were found, or a part of them alone"
        remedy = f"set {variables}{login}"
    elif answer.is_of_credentials:
        remedy = f"see whether {variables} are right, whole and not expired"
    elif answer.is_of_bucket or answer.status == 404:
        what, remedy = f"there is no bucket {address.place} at {answer.host}", "see whether its name is right"
    elif answer.connection in ("dns", "connect"):
        remedy = "see whether the address is right, and this machine has a way there"
    elif not answer.status and not answer.connection:  # it was not even asked
        what = first_line(error).rpartition("error: ")[2]
        remedy = f"see whether the address{f' and {variables}' if variables else ''} are right"
    others = f"; not read, as it is no name of the provider's: {few(unread)}" if unread else ""
    return UserError(f"`{parameter}` {address}: {what}; {remedy}{others}")


def explain_listing(error: OSError, address: Address) -> Exception:
    """Return what keeps a store from being listed: a `UserError` in one line, or ``error`` itself."""
    if error.errno == errno.EINVAL:
        return UserError(
            f"{address} holds objects whose keys have //, /./ or /../ in them, which cannot be listed; "
            "rename them, or point at a folder without them"
        )
    if not address.provider and error.errno in (errno.ENOTSUP, errno.ENOENT, errno.EACCES):
        return UserError(
            f"{address} is a web server, which lists no files; use a bucket, or pack or index the files where they lie"
        )
    return error
