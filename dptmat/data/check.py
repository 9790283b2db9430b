"""Which photographs are damaged: each decoded once, strictly."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import simplejpeg

from dptmat.device import count_cores
from dptmat.pipelines.probe import claims_too_much, find_unreadable

_CHECKED_AT_ONCE = 256  # photographs that a thread checks before it reports


def check_photographs(index):
    """Decode every photograph once on all cores, JPEG files strictly: damage that decoders pass over counts.

    libjpeg-turbo conceals most damage in the middle of a file; here its warnings are errors. Damage that happens to
    make valid codes shows in no decoder.

    Args:
        index: ``ImageIndex``.

    Yields:
        (number of photographs newly checked, list of (path, reason) of the bad ones among them).
    """
    starts = range(0, len(index), _CHECKED_AT_ONCE)
    with ThreadPoolExecutor(count_cores()) as threads:
        yield from threads.map(lambda start: _check(index, start), starts)


def _check(index, start):
    """Check up to ``_CHECKED_AT_ONCE`` photographs: their number and (path, reason) of the bad ones, in order."""
    paths = [index[i] for i in range(start, min(start + _CHECKED_AT_ONCE, len(index)))]
    strict = {path: _jpeg_damage(path) for path in paths}
    others = dict(find_unreadable([path for path in paths if strict[path] is None], None))
    reasons = {path: others.get(path) if strict[path] is None else strict[path] for path in paths}
    return len(paths), [(path, reason) for path, reason in reasons.items() if reason]


def _jpeg_damage(path):
    """What is wrong with a JPEG file; "" for nothing, None if the file is no JPEG or cannot be read."""
    if not os.path.isfile(path):
        return None
    try:
        content = Path(path).read_bytes()
    except OSError:
        return None
    if not content.startswith(b"\xff\xd8"):
        return None
    if reason := claims_too_much(path):
        return reason
    try:
        simplejpeg.decode_jpeg(content)
    except ValueError as error:
        return str(error)
    return ""
