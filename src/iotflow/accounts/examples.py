"""Accounts as the API explorer shows them."""

from typing import Any

from iotflow.http.examples import FORM, NEXT_CURSOR, answers, asks, example

_PASSWORD = "correct horse battery staple"
_SECRET = "ioti_3q2-7wABcdefGhIjKlMnOpQrStUvWxYz0123456789A"
_USER: dict[str, Any] = {
    "id": 7,
    "username": "ada",
    "email": "ada@example.com",
    "role": "user",
    "is_active": True,
    "created_at": "2026-01-31T14:00:00.000Z",
    "updated_at": "2026-01-31T14:00:00.000Z",
    "last_login_at": "2026-01-31T14:05:00.000Z",
}
_SESSION = {
    "access_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI3In0.c2lnbmF0dXJl",
    "refresh_token": "iotr_3q2-7wABcdefGhIjKlMnOpQrStUvWxYz0123456789A",
    "token_type": "bearer",
    "expires_in": 900,
    "user": _USER,
}
_TOKEN: dict[str, Any] = {
    "id": 3,
    "name": "Grafana",
    "scopes": ["read"],
    "prefix": "iotp_Xk3v9Q",
    "created_at": "2026-01-31T14:10:00.000Z",
    "expires_at": "2027-01-31T14:10:00.000Z",
    "last_used_at": "2026-01-31T14:31:00.000Z",
}

REGISTRATION = asks(
    account=example(
        "A new account",
        {"username": "ada", "email": "ada@example.com", "password": _PASSWORD},
    ),
    invited=example(
        "With an invitation",
        {
            "username": "grace",
            "email": "grace@example.com",
            "password": _PASSWORD,
            "invitation": _SECRET,
        },
    ),
)
LOGIN = asks(
    username=example("By username", {"username": "ada", "password": _PASSWORD}),
    email=example("By e-mail address", {"username": "ada@example.com", "password": _PASSWORD}),
)
TOKEN_REQUEST = asks(
    FORM,
    password=example(
        "Sign in", {"grant_type": "password", "username": "ada", "password": _PASSWORD}
    ),
    refresh=example("Stay signed in", {"grant_type": "refresh_token", "refresh_token": "iotr_…"}),
)
REFRESH = asks(session=example("Go on with a session", {"refresh_token": "iotr_…"}))
LOGOUT = asks(session=example("End a session", {"refresh_token": "iotr_…"}))
PASSWORD = asks(
    change=example(
        "A new password",
        {"current_password": _PASSWORD, "new_password": "nine white swans at dawn"},
    )
)
NEW_TOKEN = asks(
    dashboard=example("For a dashboard: reads, for ever", {"name": "Grafana", "scopes": ["read"]}),
    script=example(
        "For a script: writes too, for thirty days",
        {"name": "nightly import", "scopes": ["read", "write"], "expires_in": 2_592_000},
    ),
)
UPDATE = asks(
    address=example("Another address", {"email": "ada.lovelace@example.com"}),
    role=example("An administrator (set by another one)", {"role": "admin"}),
)

REGISTERED = answers(201, _USER)
SIGNED_IN = answers(200, _SESSION)
USER = answers(200, _USER)
USERS = answers(200, {"items": [_USER], "next_cursor": NEXT_CURSOR})
INACTIVE = answers(200, {**_USER, "is_active": False})
TOKENS = answers(200, {"items": [_TOKEN], "next_cursor": NEXT_CURSOR})
CREATED_TOKEN = answers(
    201, {**_TOKEN, "token": "iotp_Xk3v9QABcdefGhIjKlMnOpQrStUvWxYz0123456789A"}
)
