"""A client of the API for commands: credentials, and errors that say what to do."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit

import httpx
import typer

from iotflow.errors import ConfigurationError, IoTFlowError
from iotflow.http.paths import API

_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_LONGEST_DETAIL = 300
NOT_IOTFLOW = "What answers there is not IoTFlow. Check --url (IOTFLOW_URL)."


class ServerUnreachableError(IoTFlowError):
    """Nobody answers at the address, or what answers is out of order."""

    code = "server_unreachable"


class RefusedError(IoTFlowError):
    """The server understood and said no. `status` is its answer's."""

    code = "refused"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a command was given. Of several the most personal counts: user, token, key."""

    api_key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def headers(self) -> dict[str, str]:
        """What proves a token or a key; empty for a user, who has to sign in.

        Raises:
            ConfigurationError: there is nothing at all.
        """
        if self.username:
            return {}
        if self.token:
            return {"Authorization": f"Bearer {_sane(self.token, '--token')}"}
        if self.api_key:
            return {"X-API-Key": _sane(self.api_key, "--api-key")}
        raise ConfigurationError(
            "No credentials. Give --api-key (IOTFLOW_API_KEY), --token (IOTFLOW_TOKEN) "
            "or --username."
        )

    def known_password(self) -> str:
        """The password as given, or as typed in now."""
        if self.password:
            return self.password
        if not sys.stdin.isatty():
            raise ConfigurationError("--password: give it; there is no terminal to ask at.")
        return cast(str, typer.prompt(f"Password of {self.username}", hide_input=True, err=True))


def _sane(secret: str, option: str) -> str:
    secret = secret.strip()
    if not secret.isascii() or not secret.isprintable():
        raise ConfigurationError(f"{option}: this holds characters that no key or token has.")
    return secret


def base_url(url: str) -> str:
    """The address without a trailing slash.

    Raises:
        ConfigurationError: it is no address of a server.
    """
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError("--url: write it as http://127.0.0.1:8000 (IOTFLOW_URL).")
    return url.strip().rstrip("/")


class ApiClient:
    """Calls of the API below `/api/v1`, as one caller, or without credentials as nobody.

    A user is signed in at the first call, and again when the access token has expired.
    """

    def __init__(self, url: str, credentials: Credentials | None) -> None:
        self.url = base_url(url)
        self._credentials = credentials
        self._password: str | None = None
        headers = {"User-Agent": "iotflow-cli"} | (credentials.headers() if credentials else {})
        self._http = httpx.Client(base_url=f"{self.url}{API}", headers=headers, timeout=_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request, whatever its answer is.

        Raises:
            httpx.TransportError: there was no answer.
            RefusedError: signing in failed.
        """
        user = self._credentials if self._credentials and self._credentials.username else None
        if user and "Authorization" not in self._http.headers:
            busy = self._sign_in(user)
            if busy is not None:
                return busy
        answer = self._http.request(method, path, **options)
        if answer.status_code == 401 and user:
            answer = self._sign_in(user) or self._http.request(method, path, **options)
        return answer

    def call(self, method: str, path: str, **options: Any) -> Any:
        """One request whose answer must be a success; its JSON.

        Raises:
            ServerUnreachableError: there was no answer.
            RefusedError: it was no success.
        """
        try:
            return document_of(require_success(self.send(method, path, **options)))
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from None

    def _sign_in(self, user: Credentials) -> httpx.Response | None:
        """Sign in; an answer that means "later" is handed on, for the caller to come again."""
        if self._password is None:
            self._password = user.known_password()
        body = {"username": user.username, "password": self._password}
        self._http.headers.pop("Authorization", None)
        answer = self._http.post("/auth/login", json=body)
        if answer.status_code == 429 or answer.status_code >= 500:
            return answer
        if answer.status_code == 401:
            raise RefusedError(401, "Wrong username or password. Check --username and --password.")
        session = document_of(require_success(answer))
        self._http.headers["Authorization"] = f"Bearer {session.get('access_token')}"
        return None


def require_success(answer: httpx.Response) -> httpx.Response:
    """The answer itself, where it is one of success.

    Raises:
        RefusedError: it is not; the message is the server's reason and what to check.
    """
    if answer.is_success:
        return answer
    hint = ""
    if answer.status_code == 401:
        hint = " Check --api-key (IOTFLOW_API_KEY) or --token (IOTFLOW_TOKEN)."
    raise RefusedError(
        answer.status_code, f"The server answers {answer.status_code}: {problem_of(answer)}{hint}"
    )


def document_of(answer: httpx.Response) -> dict[str, Any]:
    """An answer's JSON object.

    Raises:
        ServerUnreachableError: it is something else, so this is not IoTFlow.
    """
    try:
        document: Any = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ServerUnreachableError(NOT_IOTFLOW)
    return cast("dict[str, Any]", document)


def problem_of(answer: httpx.Response) -> str:
    """The reason that an answer gives, in one line."""
    try:
        document: Any = answer.json()
    except ValueError:
        document = None
    if isinstance(document, dict):
        detail = cast("dict[str, Any]", document).get("detail")
        if isinstance(detail, str):
            return " ".join(detail.split())[:_LONGEST_DETAIL]
    return f"{answer.reason_phrase or 'no reason given'} (is this IoTFlow? Check --url)"


def unreachable(url: str, error: httpx.TransportError) -> ServerUnreachableError:
    """What to tell of a request that got no answer."""
    match error:
        case httpx.ConnectTimeout() | httpx.ConnectError():
            why = "cannot be reached"
        case httpx.TimeoutException():
            why = "does not answer in time"
        case _:
            why = "broke off the connection"
    return ServerUnreachableError(
        f"{url} {why} ({_reason(error)}). Does IoTFlow serve there? See --url (IOTFLOW_URL)."
    )


def _reason(error: httpx.TransportError) -> str:
    text = str(error).strip().rstrip(".")
    return text[:_LONGEST_DETAIL] or type(error).__name__


def os_reason(error: OSError) -> str:
    """Why a file operation failed, in a few words."""
    return error.strerror or type(error).__name__


def require_directory(path: Path, option: str) -> None:
    """Let a file be written at `path` later.

    Raises:
        ConfigurationError: its folder is not there.
    """
    if not path.parent.is_dir():
        raise ConfigurationError(f"{option}: there is no folder {path.parent}. Make it first.")
