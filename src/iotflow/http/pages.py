"""The pages of the API explorer, where they differ from what their package serves."""

from functools import cache
from importlib.resources import files

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

_STATIC = "/static-offline-docs"
_SCRIPT = f"{_STATIC}/redoc.standalone.js"
_PICTURE = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
_NOTHING = b"data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="

_PRESETS = "presets: ["
# What has signed in is kept over a reload, in the browser's storage, as the page has it: with the
# password, and with a refresh token that nothing on the page uses.
_FORGET = """\
plugins: [() => ({statePlugins: {auth: {wrapActions: {authorizeOauth2: (keep) => ({auth, token}) =>
        keep({auth: {...auth, password: ""}, token: {...token, refresh_token: undefined}})
    }}}})],
    """


def serve_pages(app: FastAPI) -> None:
    """Serve the explorer so that it keeps no password, and the reference so that it asks for
    nothing outside: its script has the address of a logo in it.
    """
    page = _explorer(app)

    async def explorer(_: Request) -> Response:
        return HTMLResponse(page)

    # Before the package's own, which would take them.
    app.router.routes[:0] = [Route("/docs", explorer), Route(_SCRIPT, _reference_script)]


def _explorer(app: FastAPI) -> str:
    page = get_swagger_ui_html(
        openapi_url=app.openapi_url or "",
        title=f"{app.title} - Swagger UI",
        swagger_js_url=f"{_STATIC}/swagger-ui-bundle.js",
        swagger_css_url=f"{_STATIC}/swagger-ui.css",
        swagger_favicon_url=f"{_STATIC}/favicon.png",
        swagger_ui_parameters=app.swagger_ui_parameters,
    )
    return bytes(page.body).decode().replace(_PRESETS, _FORGET + _PRESETS)


async def _reference_script(_: Request) -> Response:
    return Response(_script(), media_type="text/javascript")


@cache
def _script() -> bytes:
    path = files("fastapi_offline") / "static" / "redoc.standalone.js"
    return path.read_bytes().replace(_PICTURE, _NOTHING)
