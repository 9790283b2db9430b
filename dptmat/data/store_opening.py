"""Opening an object store: one question, and in one line what is wrong with the address or the credentials."""

import logging
import os
import queue
import re
import threading
from typing import Any

from dptmat.data import object_store
from dptmat.data.store_address import (
    Address,
    check_environment,
    find_region,
    given_region,
    has_profiles,
    is_bucket,
    parse_address,
)
from dptmat.data.store_answers import Answer, explain, read_answer
from dptmat.errors import UserError, first_line

_logger = logging.getLogger(__name__)

_PATIENCE = 4.8  # seconds
# Ways to credentials that count before a profile.
_BEFORE_PROFILES = (
    *("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
)
_OF_PROFILES = ("AWS_SHARED_CREDENTIALS_FILE",)  # read by boto3
_LOOKS = {
    "AWS": r"(AWS|S3|MINIO)_\w*(KEY|SECRET|TOKEN|ENDPOINT|REGION)\w*",
    "GOOGLE": r"(GOOGLE|GCS|GCP)_\w*(KEY|CREDENTIAL|TOKEN|ACCOUNT)\w*",
    "AZURE": r"AZURE_\w*(KEY|SECRET|TOKEN|ACCOUNT|CONNECTION)\w*",
}


def connect(url: str, parameter: str) -> object_store.ObjectStore:
    """Open the store of a URL, after it has been asked whether it answers.

    Raises:
        UserError: It is no URL of a store, or the store refuses or does not answer within 5 seconds.
    """
    address = parse_address(url, parameter)
    check_environment(address, parameter)
    answers: queue.SimpleQueue[dict[str, Any] | BaseException] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(_ask(address, parameter))
        except BaseException as error:  # a panic of obstore, too
            answers.put(error)

    threading.Thread(target=ask, name="object store", daemon=True).start()
    try:
        answer = answers.get(timeout=_PATIENCE)
    except queue.Empty:
        raise UserError(
            f"`{parameter}` {address}: no answer within 5 seconds; see whether the address is right, and try again"
        ) from None
    if isinstance(answer, Exception):
        raise answer
    if isinstance(answer, BaseException):
        raise explain(answer, address, parameter, _unread(address.provider)) from None
    return object_store.ObjectStore(address, answer)


def _ask(address: Address, parameter: str) -> dict[str, Any]:
    """Return the options of a store that answers."""
    options: dict[str, Any] = {}
    if address.provider == "AWS":
        options["profile"] = _has_profile(address, parameter)
        options["region"] = find_region(address.place) if is_bucket(address) and not given_region() else ""
    try:
        is_file = object_store.ask(address, options)
    except object_store.ERRORS as error:
        if read_answer(error).is_of_region:
            raise _of_region(address, parameter, read_answer(error)) from None
        if not _is_there(error, address):
            raise explain(error, address, parameter, _unread(address.provider)) from None
        return options
    if is_file:
        raise UserError(f"`{parameter}` {address} is one file; point it at the folder that it lies in")
    return options


def _of_region(address: Address, parameter: str, answer: Answer) -> UserError:
    right, given = find_region(address.place) if is_bucket(address) else "", given_region()
    where = f"lies in {right}" if right else "lies elsewhere"
    return UserError(
        f"`{parameter}` {address}: the bucket {where}, and not in {given or 'us-east-1'} ({answer}); "
        f"set AWS_REGION={right or 'its region'}"
    )


def _has_profile(address: Address, parameter: str) -> bool:
    """Tell whether the credentials are those of a profile, which boto3 reads.

    Raises:
        UserError: They are, and cannot be had.
    """
    named = os.environ.get("AWS_PROFILE", "")
    if any(os.environ.get(name) for name in _BEFORE_PROFILES) or not (named or has_profiles()):
        return False
    try:
        object_store.profile_credentials()()
    except Exception as error:  # of boto3, of which there are many kinds
        if not named:
            return False
        what = "needs the package boto3" if isinstance(error, ModuleNotFoundError) else f"fails: {first_line(error)}"
        raise UserError(
            f"`{parameter}` {address}: AWS_PROFILE={named} {what}; pip install boto3, log in again (aws sso login), "
            "or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    return True


def _unread(provider: str) -> list[str]:
    """Return the variables of the environment that look as if they were meant for a provider, and are not read."""
    names = [name for name in sorted(os.environ) if provider and re.fullmatch(_LOOKS[provider], name)]
    return [name for name in names if name not in _OF_PROFILES and not object_store.is_read(provider, name)]


def _is_there(error: Exception, address: Address) -> bool:
    """Tell whether a store has answered that all is well but for what it was asked for."""
    answer = read_answer(error)
    if answer.connection or answer.is_of_credentials or answer.is_of_bucket:
        return False
    if not address.provider:  # a web server, whose folders may be hidden
        return answer.status < 500
    if answer.status == 403:
        _logger.warning("%s may not be listed by these credentials: its files are read by name", address)
        return True
    return isinstance(error, FileNotFoundError)  # an empty folder
