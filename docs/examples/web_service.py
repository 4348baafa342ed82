"""A web service that describes images: ``python web_service.py``; POST an image to /describe.

It answers with the text, who gave it, and why it is degraded if it is. /ready is 200 while some backend can answer.
"""

from __future__ import annotations

import os

from aiohttp import web

from vision_backends import AllBackendsFailedError, AsyncRouter, CallerError

ROUTER = web.AppKey("router", AsyncRouter)
MAX_BYTES = 20_000_000


async def describe(request: web.Request) -> web.Response:
    """Describe the image in the body."""
    router = request.app[ROUTER]
    try:
        answer = await router.describe(await request.read(), deadline_s=20)
    except CallerError as error:
        return web.json_response({"error": error.kind, "message": error.message}, status=400)
    except AllBackendsFailedError as error:
        return web.json_response({"error": error.kind, "message": error.message}, status=503)
    trace = answer.trace
    return web.json_response(
        {"text": answer.text, "backend": trace.backend, "degraded": trace.degraded, "reason": trace.reason}
    )


async def ready(request: web.Request) -> web.Response:
    """Say whether anything could answer now."""
    explanation = await request.app[ROUTER].explain("describe")
    return web.json_response({"backend": explanation.chosen}, status=200 if explanation.chosen else 503)


async def on_start(app: web.Application) -> None:
    """Load models before the first request needs them."""
    await app[ROUTER].warm_up(["describe"], wait_s=0)


async def on_cleanup(app: web.Application) -> None:
    """Write what is still to be written."""
    await app[ROUTER].close()


def application() -> web.Application:
    """Return the service."""
    app = web.Application(client_max_size=MAX_BYTES)
    app[ROUTER] = AsyncRouter.from_config()
    app.router.add_post("/describe", describe)
    app.router.add_get("/ready", ready)
    app.on_startup.append(on_start)
    app.on_cleanup.append(on_cleanup)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
