"""What the pages tell people to type does what the pages say."""

import re
from pathlib import Path

import pytest

from tests.api.openapi_changes import current_document
from tests.docs.pages import DOCS, Block, Run, differences, pages, run_page, same

_LINK = re.compile(r"\]\(([^)#\s]+)(#[\w-]+)?\)")
_HEADING = re.compile(r"^#+ (.*)$", re.M)


@pytest.fixture(scope="module")
def runs() -> dict[Path, Run]:
    return {}


def run_of(page: Path, runs: dict[Path, Run]) -> Run:
    if page not in runs:
        runs[page] = run_page(page)
    return runs[page]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(DOCS)))
def test_what_a_page_shows_is_what_comes_out(page: Path, runs: dict[Path, Run]) -> None:
    found = differences(run_of(page, runs))
    assert not found, "\n\n".join(found) + f"\nrenew it: python -m tests.docs.pages {page}"


def test_every_call_is_shown_with_a_line_that_was_run(runs: dict[Path, Run]) -> None:
    called = {each for page in pages() for each in run_of(page, runs).operations}
    known = {
        (method.upper(), path)
        for path, methods in current_document()["paths"].items()
        for method in methods
    }
    missing = sorted(known - called)
    assert not missing, f"no page shows {missing}"


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in _LINK.findall(page.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        linked = (page.parent / target).resolve()
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor[1:] in anchors(linked), f"{page.name}: {target}{anchor}"


def anchors(page: Path) -> set[str]:
    headings = _HEADING.findall(page.read_text("utf-8"))
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def test_every_page_is_linked_from_the_first_one() -> None:
    linked = set(_LINK.findall((DOCS / "README.md").read_text("utf-8")))
    linked = {(DOCS / target).resolve() for target, _ in linked}
    for page in [*DOCS.glob("*.md"), *DOCS.glob("api/*.md")]:
        assert page in linked or page.name == "README.md", page.name


@pytest.mark.parametrize(
    ("kind", "shown", "output", "alike"),
    [
        ("json", '{"id": 1, "name": "a"}', '{"id": 1, "name": "a"}', True),
        ("json", '{"id": 1, "name": "a"}', '{"id": 2, "name": "a"}', False),
        ("json", '{"id": 1}', '{"id": 1, "more": 2}', False),
        ("json", '{"api_key": "iotd_1"}', '{"api_key": "iotd_2"}', True),
        ("json", '{"api_key": "iotd_1"}', '{"api_key": null}', False),
        ("json", '{"timestamp": "2026-01-31T14:30:00.000Z"}',
         '{"timestamp": "2026-01-31T14:31:00.000Z"}', False),
        ("json", '{"a": 1}\n{"b": 2}', '{"a":1}{"b":2}', True),
        ("json", "{}", "no JSON", False),
        ("text", "HTTP/1.1 204", "HTTP/1.1 204\n", True),
        ("text", "204", "401", False),
    ],
)  # fmt: skip
def test_a_difference_is_seen(kind: str, shown: str, output: str, alike: bool) -> None:
    assert same(Block("", shown, kind, 0, 0), output) is alike
