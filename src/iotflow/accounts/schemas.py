"""What accounts look like over HTTP."""

from typing import Annotated, Any, Literal

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from iotflow.domain.tokens import PersonalToken, Scope
from iotflow.domain.users import User, UserRole
from iotflow.http.pagination import Cursor, Limit
from iotflow.http.responses import ProblemDocument
from iotflow.http.schemas import WHOLE, Body, Model, Query, Text, Time

Username = Annotated[
    str,
    StringConstraints(min_length=3, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"),
    Field(description="Letters, digits and . _ - after a first letter or digit.", examples=["ada"]),
]
NewPassword = Annotated[
    str,
    StringConstraints(min_length=8, max_length=256),
    Field(description="At least 8 characters.", examples=["correct horse battery"]),
]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=512)]


# Names that are reserved in the world (ada@plant.local) are as good as any: no mail is sent from
# here. Below this one the library looks at their form alone.
_BELOW = ".example.com"


def _email(text: str) -> str:
    try:
        return validate_email(text + _BELOW, check_deliverability=False).normalized.removesuffix(
            _BELOW
        )
    except EmailNotValidError as error:
        raise ValueError(str(error)) from None


Email = Annotated[
    str, AfterValidator(_email), WithJsonSchema({"type": "string", "format": "email"})
]


class Registration(Body):
    username: Username
    email: Annotated[Email, Field(max_length=254, examples=["ada@example.com"])]
    password: NewPassword
    invitation: Annotated[
        Secret | None, Field(description="Its code, where registration is by invitation.")
    ] = None


class PasswordChange(Body):
    current_password: Secret
    new_password: NewPassword


class UserUpdate(Body):
    """What is left out stays as it is."""

    username: Annotated[Username, Field(default_factory=str)]
    email: Annotated[
        Email, Field(max_length=254, examples=["ada@example.com"], default_factory=str)
    ]
    role: Annotated[
        UserRole,
        Field(
            strict=False,
            description="Only an administrator sets it.",
            default_factory=lambda: UserRole.USER,
        ),
    ]


class UserListQuery(Query):
    q: Annotated[
        Annotated[Text, StringConstraints(min_length=1, max_length=254)] | None,
        Field(description="Part of a name or address", examples=["ada"]),
    ] = None
    role: UserRole | None = None
    is_active: bool | None = None
    limit: Limit = 100
    cursor: Cursor = None


_SCOPES_SCHEMA = {
    "type": "array",
    "items": {"type": "string", "enum": ["read", "write"]},
    "minItems": 1,
    "maxItems": 2,
    "uniqueItems": True,
    "contains": {"const": "read"},
    "examples": [["read"], ["read", "write"]],
    "description": "read, or read and write",
}


def _each_once(scopes: list[Scope]) -> list[Scope]:
    if len(set(scopes)) < len(scopes) or Scope.READ not in scopes:
        raise ValueError('send ["read"] or ["read", "write"]')
    return scopes


class NewToken(Body):
    name: Annotated[Text, StringConstraints(min_length=1, max_length=128)]
    scopes: Annotated[
        list[Annotated[Scope, Field(strict=False)]],
        Field(min_length=1, max_length=2),
        AfterValidator(_each_once),
        WithJsonSchema(_SCOPES_SCHEMA),
    ]
    expires_in: Annotated[
        Annotated[int, Field(ge=1, le=100 * 365 * 86_400), WHOLE] | None,
        Field(description="Seconds; for ever where it is left out"),
    ] = None


class TokenListQuery(Query):
    limit: Limit = 100
    cursor: Cursor = None


class Login(Body):
    username: Annotated[
        Text,
        StringConstraints(min_length=1, max_length=254),
        Field(description="The username or the e-mail address.", examples=["ada"]),
    ]
    password: Annotated[Secret, Field(examples=["correct horse battery"])]


class RefreshToken(Body):
    refresh_token: Secret


_GRANT = {
    "type": "string",
    "enum": ["password", "refresh_token"],
    "description": "`password` with the two fields below, or `refresh_token` with the third.",
}
TOKEN_REQUEST: dict[str, Any] = {
    "type": "object",
    "properties": {
        "grant_type": _GRANT,
        **Login.model_json_schema()["properties"],
        **RefreshToken.model_json_schema()["properties"],
    },
    "required": ["grant_type"],
}


class TokenRefusalOut(ProblemDocument):
    """A problem in the words of RFC 6749 too, which OAuth clients know."""

    error: Annotated[str, Field(description="The same as `code`.")]
    error_description: Annotated[str, Field(description="The same as `detail`.")]


class UserOut(Model):
    id: int
    username: str
    email: str
    role: str
    is_active: bool
    created_at: Time
    updated_at: Time
    last_login_at: Time | None

    @classmethod
    def of(cls, user: User) -> "UserOut":
        return cls(
            id=user.id,
            username=user.username,
            email=user.email,
            role=user.role.value,
            is_active=user.is_active,
            created_at=user.created_at,
            updated_at=user.updated_at,
            last_login_at=user.last_login_at,
        )


class UsersOut(Model):
    items: list[UserOut]
    next_cursor: str | None


class TokenOut(Model):
    id: int
    name: str
    scopes: list[Scope]
    prefix: str
    created_at: Time
    expires_at: Time | None
    last_used_at: Annotated[Time | None, Field(description="To the minute.")]

    @classmethod
    def of(cls, token: PersonalToken) -> "TokenOut":
        return cls(
            id=token.id,
            name=token.name,
            scopes=sorted(token.scopes),
            prefix=token.prefix,
            created_at=token.created_at,
            expires_at=token.expires_at,
            last_used_at=token.last_used_at,
        )


class CreatedTokenOut(TokenOut):
    token: Annotated[str, Field(description="Shown this once.")]


class TokensOut(Model):
    items: list[TokenOut]
    next_cursor: str | None


class Session(Model):
    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"
    expires_in: Annotated[int, Field(description="Seconds until the access token expires.")]
    user: UserOut
