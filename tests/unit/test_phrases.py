"""What a status is called does not depend on the Python that runs."""

from http import HTTPStatus

import msgspec
import pytest

from iotflow.http import connections
from iotflow.http.phrases import PHRASES
from iotflow.http.problems import STATUS, Problem
from tests.api.openapi_changes import current_document

# Pythons before 3.13 call these as RFC 2616 and 4918 did.
RENAMED = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


@pytest.mark.parametrize(("status", "phrase"), RENAMED.items())
def test_a_problem_has_the_newest_name(status: int, phrase: str) -> None:
    assert msgspec.json.decode(Problem(status, "x", "x").body("id"))["title"] == phrase


def test_the_other_names_are_those_of_every_python() -> None:
    others = {status: phrase for status, phrase in PHRASES.items() if status not in RENAMED}
    assert others == {status: HTTPStatus(status).phrase for status in others}


def test_every_status_that_is_answered_has_a_name() -> None:
    refusals = [
        each for each in vars(connections).values() if isinstance(each, connections.Refusal)
    ]
    answered = {*STATUS.values(), *(each.status for each in refusals if each.status)}
    assert answered <= PHRASES.keys()


def test_the_document_says_them() -> None:
    for methods in current_document()["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if "application/problem+json" in answer.get("content", {}):
                    assert answer["description"] == PHRASES[int(status)]
