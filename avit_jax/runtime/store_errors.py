"""What goes wrong in an object store, in one sentence."""

from __future__ import annotations

import re

from avit_jax.errors import StoreUnreachable, UserError

# Packages whose errors are the store's, and not our own.
_CLIENTS = {"aiobotocore", "aiohttp", "boto3", "botocore", "gcsfs", "google", "requests", "s3fs"}
_TENSORSTORE = re.compile(r"http_response_code=|CURL error")  # its errors are ValueErrors


def in_words(error: BaseException, *places: str | None) -> UserError | None:
    """One sentence about what went wrong in a store; `None` where it was not in a store.

    Texts of clients stay out of it: they may quote addresses that are signed.

    Args:
        error: anything, with what it was raised from.
        *places: paths as they were given, if they were; the first in a store is named.
    """
    place = next((each for each in places if each and "://" in each), "a path in a store")
    chain = []
    while error is not None and len(chain) < 20:
        if isinstance(error, UserError):
            return None
        chain.append(error)
        error = error.__cause__ or error.__context__
    if not any(_is_of_store(each) for each in chain):
        return None
    text = " ".join(f"{type(each).__name__} {each}" for each in chain)
    if any(_code(each) in (401, 403) for each in chain) or re.search(
        "Forbidden|AccessDenied|PERMISSION_DENIED|InvalidAccessKeyId|NoCredentials|"
        "DefaultCredentialsError|RefreshError|UNAUTHENTICATED|Invalid Credentials|PermissionError",
        text,
    ):
        return UserError(
            f"{place}: the store refuses access: log in, for gs:// with `gcloud auth "
            "application-default login`, or give this machine's account the right to read and "
            "write objects there."
        )
    if any(isinstance(each, FileNotFoundError) for each in chain) or re.search(
        "NoSuchBucket|NOT_FOUND|Not Found", text
    ):
        return UserError(
            f"{place}: there is no such bucket or object: correct the path, or make the bucket "
            "first."
        )
    return StoreUnreachable(
        f"{place}: the store cannot be reached ({type(chain[-1]).__name__}): check the network; "
        "the same command goes on from the newest checkpoint."
    )


def _code(error: BaseException) -> int | None:
    """The HTTP status that an error carries."""
    code = getattr(error, "code", None) or getattr(error, "status", None)
    return int(code) if str(code).isdecimal() else None


def _is_of_store(error: BaseException) -> bool:
    """Whether an error is of a client's type, or went through one."""
    if type(error).__module__.partition(".")[0] in _CLIENTS or _TENSORSTORE.search(str(error)):
        return True
    trace = error.__traceback__
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] in _CLIENTS:
            return True
        trace = trace.tb_next
    return False
