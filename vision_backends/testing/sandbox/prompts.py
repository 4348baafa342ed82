"""From the bodies of the chat and responses endpoints to one `Prompt`.

This module decides which requests are well formed, and refuses the others as the real API does. It must not know
what is answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vision_backends.testing.sandbox.answers import Prompt
from vision_backends.testing.sandbox.wire import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vision_backends.testing.sandbox.pictures import Album, Picture

__all__ = ["read_chat", "read_content", "read_responses"]

_TEXTS = frozenset({"text", "input_text", "output_text", "refusal"})
_IMAGES = frozenset({"image_url", "input_image"})


def read_chat(body: Mapping[str, Any], album: Album) -> Prompt:
    """Return the prompt of a request to ``/v1/chat/completions``.

    Raises:
        ApiError: The request is not well formed.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError("invalid_request", message="'messages' must be a list that is not empty.", param="messages")
    text, pictures = read_content(messages, album)
    kind = _object(body.get("response_format"), "response_format").get("type", "text")
    schema = _object(_object(body.get("response_format"), "response_format").get("json_schema"), "json_schema")
    return Prompt(
        model=str(body["model"]),
        text=text,
        pictures=pictures,
        schema=_schema(kind, schema, param="response_format"),
        json_mode=_json_mode(kind, text, param="response_format"),
        max_tokens=_limit(body, "max_completion_tokens") or _limit(body, "max_tokens"),
        stream=body.get("stream") is True,
    )


def read_responses(body: Mapping[str, Any], album: Album) -> Prompt:
    """Return the prompt of a request to ``/v1/responses``.

    Raises:
        ApiError: The request is not well formed.
    """
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        raise ApiError("invalid_request", message="'input' must be a text or a list of items.", param="input")
    messages = [{"content": given}] if isinstance(given, str) else given
    text, pictures = read_content([{"content": body.get("instructions")}, *messages], album)
    form = _object(_object(body.get("text"), "text").get("format"), "text.format")
    kind = form.get("type", "text")
    return Prompt(
        model=str(body["model"]),
        text=text,
        pictures=pictures,
        schema=_schema(kind, form, param="text.format"),
        json_mode=_json_mode(kind, text, param="text.format"),
        max_tokens=_limit(body, "max_output_tokens"),
        stream=body.get("stream") is True,
    )


def read_content(messages: list[Any], album: Album) -> tuple[str, tuple[Picture, ...]]:
    """Return the texts, one per line, and the images of some messages.

    Raises:
        ApiError: A message, a part or an image is not well formed.
    """
    texts: list[str] = []
    pictures: list[Picture] = []
    for part in _parts(messages):
        kind = part.get("type")
        if kind in _TEXTS:
            texts.append(str(part.get("text", "")))
        elif kind in _IMAGES:
            image = part.get("image_url")
            url, detail = (
                (image.get("url"), image.get("detail")) if isinstance(image, dict) else (image, part.get("detail"))
            )
            pictures.append(album.picture(url, detail=detail))
        else:
            raise ApiError("invalid_request", message=f"Invalid value: {kind!r} as the type of a content part.")
    return "\n".join(filter(None, texts)), tuple(pictures)


def _parts(messages: list[Any]) -> Iterator[Mapping[str, Any]]:
    for message in messages:
        content = _object(message, "messages").get("content")
        if isinstance(content, str):
            yield {"type": "text", "text": content}
        elif isinstance(content, list):
            yield from (_object(part, "content") for part in content)
        elif content is not None:
            raise ApiError("invalid_request", message="'content' must be a text or a list of parts.", param="content")


def _object(value: Any, name: str) -> Mapping[str, Any]:  # noqa: ANN401 — any JSON
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ApiError("invalid_request", message=f"{name!r} must be an object.", param=name)
    return value


def _schema(kind: str, form: Mapping[str, Any], *, param: str) -> Mapping[str, Any] | None:
    if kind != "json_schema":
        return None
    if not isinstance(form.get("name"), str) or not isinstance(form.get("schema"), dict):
        raise ApiError("invalid_request", message=f"Missing required parameter: '{param}'.", param=param)
    schema: Mapping[str, Any] = form["schema"]
    if form.get("strict") is True and (flaw := _loose(schema)):
        raise ApiError("invalid_request", message=f"Invalid schema for {param!r}: {flaw}.", param=param)
    return schema


def _loose(schema: Any) -> str | None:  # noqa: ANN401 — any JSON
    """Return why a schema is not strict, which needs every object closed and every property required; None if it is."""
    if isinstance(schema, list):
        return next(filter(None, map(_loose, schema)), None)
    if not isinstance(schema, dict):
        return None
    if isinstance(properties := schema.get("properties"), dict) and schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            return "'additionalProperties' is required to be supplied and to be false"
        if missing := sorted(set(properties) - set(schema.get("required", ()))):
            return f"'required' is required to include every key in properties. Missing {missing[0]!r}"
    return next(filter(None, map(_loose, schema.values())), None)


def _json_mode(kind: str, text: str, *, param: str) -> bool:
    if kind != "json_object":
        return False
    if "json" not in text.lower():
        raise ApiError(
            "invalid_request",
            message=f"The messages must contain the word 'json' to use '{param}' of type 'json_object'.",
            param=param,
        )
    return True


def _limit(body: Mapping[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or value < 1:
        raise ApiError("invalid_request", message=f"Invalid {name!r}: it must be at least 1.", param=name)
    return value
