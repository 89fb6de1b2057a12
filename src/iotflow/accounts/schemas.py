"""What accounts look like over HTTP."""

from typing import Annotated, Literal

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from iotflow.domain.users import User
from iotflow.http.schemas import Body, Model, Time

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


class Login(Body):
    username: Annotated[
        str,
        StringConstraints(min_length=1, max_length=254),
        Field(description="The username or the e-mail address.", examples=["ada"]),
    ]
    password: Annotated[Secret, Field(examples=["correct horse battery"])]


class RefreshToken(Body):
    refresh_token: Secret


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


class Session(Model):
    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"
    expires_in: Annotated[int, Field(description="Seconds until the access token expires.")]
    user: UserOut
