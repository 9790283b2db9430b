"""The Hugging Face Hub: files of a repository come through its cache, and a folder goes there.

An address is ``hf://user/name``, ``hf://user/name@revision`` (a branch, a tag or a commit), or either with
``/path/of/a/file`` behind it. This file alone imports huggingface_hub, when it is needed. The credentials are those of
``hf auth login`` or HF_TOKEN; nothing here asks for or shows them.
"""

import logging
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dptmat.errors import UserError

_logger = logging.getLogger(__name__)

# pathlib makes one slash of two. A branch's name may have slashes, as %2F; the Hub's own are taken as they are.
_ADDRESS = re.compile(
    r"hf:/{1,2}(?:models/)?(?P<name>[^/@]+/[^/@]+)(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?"
    r"(?:/(?P<file>.+?))?/?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LOG_IN = "log in by: hf auth login"
_ANSWERS = {
    401: ("the Hub refuses this token", f"{_LOG_IN}, or mend HF_TOKEN"),
    403: ("this token may not do that", "take one that has the right, and for a push a name of your own"),
    429: ("the Hub takes no more requests for now", f"wait some minutes, or {_LOG_IN}"),
}


def is_address(path: str | Path) -> bool:
    """Tell whether a path is meant as an address on the Hub."""
    return str(path).startswith("hf:/")


def is_name(name: str) -> bool:
    """Tell whether the Hub takes a name, ``user/name``."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1 and not name.startswith(("datasets/", "spaces/"))


class Repository:
    """The files of a network's repository, all of one commit.

    Args:
        address: Of the repository, or of a file in it, ``file``.

    Raises:
        UserError: It is no address.
    """

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        found = _ADDRESS.fullmatch(self.address)
        if not found or not is_name(found["name"]):
            raise UserError(
                f"{self.address} is no address of a network on the Hub; expected hf://user/name, "
                "hf://user/name@revision or hf://user/name/file.pt"
            )
        self._name, self.file = found["name"], found["file"]
        self._revision = unquote(found["revision"] or "main")
        self._away: tuple[str, str] | None = None  # why the Hub was not heard: all else is of the cache alone

    def find(self, file: str, most: int | None = None) -> Path | None:
        """Bring a file into the Hub's cache, or find it there where the Hub is not heard.

        Args:
            file: Its path in the repository.
            most: Bytes that it may have.

        Returns:
            Its path in the cache; None if there is no such file in the repository, or in the cache where that is all.

        Raises:
            UserError: There is no such revision, or the file is too large.
        """
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import LocalEntryNotFoundError

        where: dict[str, Any] = {"repo_id": self._name, "filename": file, "revision": self._revision}
        away = self._away
        known = _COMMIT.fullmatch(self._revision) and isinstance(try_to_load_from_cache(**where), str)
        if not (known or self._away or self._has(where, most)):
            return None
        try:
            path = Path(hf_hub_download(**where, local_files_only=bool(known or self._away)))
        except LocalEntryNotFoundError as error:
            self._away = self._away or _explain(error)
            return None
        except Exception as error:  # huggingface_hub raises many types
            raise UserError(f"{self.address} cannot be fetched: {'; '.join(_explain(error))}") from error
        if self._away and not away:
            _logger.info("%s: %s, so the copy in the Hub's cache is taken", self.address, self._away[0])
        if commit := re.search(r"/snapshots/([0-9a-f]{40})/", path.as_posix()):
            self._revision = commit[1]
        return path

    def fetch(self, file: str) -> Path:
        """Find a file as `find`.

        Raises:
            UserError: As for `find`, or there is no such file.
        """
        path = self.find(file)
        if path is None and self._away:
            cause, remedy = self._away
            raise UserError(f"{self.address} cannot be fetched: {cause}, and the Hub's cache has no copy; {remedy}")
        if path is None:
            raise UserError(
                f"{self.address}: the repository has no file {file}; name one that it has, as hf://{self._name}/FILE"
            )
        return path

    def _has(self, where: dict[str, Any], most: int | None) -> bool:
        """Ask the Hub for a file, once: hf_hub_download would ask for minutes before it said that nobody answers.

        Raises:
            UserError: There is no such revision, or the file is too large.
        """
        from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url

        try:
            size = get_hf_file_metadata(hf_hub_url(**where), timeout=constants.HF_HUB_ETAG_TIMEOUT).size or 0
        except errors.RemoteEntryNotFoundError:
            return False
        except errors.RevisionNotFoundError as error:
            line = f"{self.address}: there is no revision {self._revision}; leave it out for the newest"
            raise UserError(line) from error
        except Exception as error:  # huggingface_hub raises many types
            self._away = _explain(error)
            return True  # perhaps of the cache
        if most is not None and size > most:
            raise UserError(f"{self.address}: its {where['filename']} has {size:,} bytes; at most {most:,} are read")
        return True


def require_login(name: str) -> None:
    """Refuse to begin with what could not be sent to the repository ``name``.

    Raises:
        UserError: There are no credentials.
    """
    from huggingface_hub import get_token

    if not get_token():
        raise UserError(f"{name} cannot be pushed: nobody is logged in; {_LOG_IN}, or set HF_TOKEN")


def upload(folder: str | Path, name: str, *, private: bool) -> str:
    """Put the files of a folder into a repository, which is made if there is none; one that is there stays as visible.

    Args:
        folder: The files.
        name: ``user/name``.
        private: Whether a new repository is private.

    Returns:
        The address of its page.

    Raises:
        UserError: The credentials do not suffice, or the Hub is not heard.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi(library_name="dptmat")
        page = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Add a network by dptmat")
    except Exception as error:  # huggingface_hub raises many types
        raise UserError(f"{name} cannot be pushed: {'; '.join(_explain(error))}") from error
    return str(page)


def _explain(error: Exception) -> tuple[str, str]:
    """Say why the Hub did not do what was asked, and what to do; huggingface_hub takes several lines."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "it is for those who have accepted its terms", f"accept them on its page, and {_LOG_IN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such repository, or it is private", f"check the name, or {_LOG_IN}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set", "unset it"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        said = f", {error.server_message[:100]!r}" if error.server_message else ""
        return _ANSWERS.get(
            status, (f"the Hub answers {status}{said}", "try again later" if status >= 500 else "mend that")
        )
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}", "mend that"
    line = " ".join(str(error).split())[:300] or type(error).__name__
    if type(error).__module__.startswith("httpx"):
        return f"the Hub cannot be reached ({line})", "connect to the network"
    return line.rstrip("."), "mend that, or try again"
