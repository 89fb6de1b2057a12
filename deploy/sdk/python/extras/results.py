"""From answers that may be problems to results or exceptions."""

from typing import TypeVar

from .models.field_problem import FieldProblem
from .models.nothing_accepted import NothingAccepted
from .models.problem import Problem
from .models.rejected import Rejected
from .models.token_refusal import TokenRefusal

T = TypeVar("T")
AnyProblem = Problem | NothingAccepted | TokenRefusal


class ApiError(Exception):
    """The service said no. `code` is stable, `detail` is for people."""

    def __init__(self, problem: AnyProblem) -> None:
        super().__init__(f"{problem.status} {problem.code}: {problem.detail}")
        self.problem = problem
        self.status = problem.status
        self.code = problem.code
        self.detail = problem.detail
        self.request_id = problem.request_id

    @property
    def errors(self) -> list[FieldProblem]:
        """The fields at fault, if it is fields."""
        return self.problem.errors if isinstance(self.problem.errors, list) else []

    @property
    def rejected(self) -> list[Rejected]:
        """The measurements at fault, where none of a submission was stored."""
        rejected = self.problem.rejected if isinstance(self.problem, NothingAccepted) else None
        return rejected if isinstance(rejected, list) else []


class UnreadableAnswerError(Exception):
    """What answered is not this version of the service."""


def ok(answer: T | AnyProblem | None) -> T:
    """The answer, if it is no problem.

    Raises:
        ApiError: it is one.
        UnreadableAnswerError: the status is none that the API's document knows.
    """
    if isinstance(answer, AnyProblem):
        raise ApiError(answer)
    if answer is None:
        raise UnreadableAnswerError("an answer with a status that this client does not know")
    return answer
