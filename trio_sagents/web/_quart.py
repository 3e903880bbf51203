"""The bridge as a blueprint of quart-trio."""

from typing import TYPE_CHECKING

import attrs

from trio_sagents.web._asgi import App, Message, Receive, Send
from trio_sagents.web._bridge import Bridge

if TYPE_CHECKING:
    from quart import Blueprint
    from quart.blueprints import BlueprintSetupState


@attrs.frozen
class _Below:
    """Hands the requests below a prefix to the bridge, and all others to the application."""

    bridge: Bridge
    prefix: str
    app: App

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        root = scope.get("root_path", "").rstrip("/") if scope["type"] in {"http", "websocket"} else ""
        below = f"{scope.get('path', '')}/".removeprefix(root)
        if scope["type"] in {"http", "websocket"} and below.startswith(f"{self.prefix}/"):
            await self.bridge({**scope, "root_path": f"{root}{self.prefix}"}, receive, send)
        else:
            await self.app(scope, receive, send)


def blueprint(bridge: Bridge, name: str = "trio_sagents") -> "Blueprint":
    """Return the bridge as a blueprint for a quart-trio application.

    Register it with a `url_prefix`. All requests below the prefix go to the bridge: the hooks of the application
    (`before_request`, say) are not called for them, and the bridge's `authenticate` says who is there.

    Args:
        bridge: the bridge.
        name: of the blueprint; not that of another blueprint of the application.

    Raises:
        ImportError: quart is not installed.
    """
    from quart import Blueprint  # noqa: PLC0415  # the bridge itself needs no framework

    made = Blueprint(name, __name__)

    def put_below(state: "BlueprintSetupState") -> None:
        prefix = (state.url_prefix or "").rstrip("/")
        if not prefix:
            raise ValueError('register the blueprint with a url_prefix, such as register_blueprint(blueprint(bridge), url_prefix="/chat")')
        # The applications call `asgi_app`, which Quart has for middleware.
        state.app.asgi_app = _Below(bridge, prefix, state.app.asgi_app)  # type: ignore[attr-defined]  # the type leaves open which kind of application it is

    made.record(put_below)
    return made
