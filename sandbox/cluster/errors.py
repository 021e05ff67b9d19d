"""Refusals of the API server, with the reasons, codes and texts of the real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cause:
    """One reason why an object is invalid: `reason` as in `FieldValueInvalid`, `field` as a dotted path."""

    reason: str
    message: str
    field: str

    def line(self) -> str:
        """The cause as the real API server prints it."""
        return f"{self.field}: {self.message}"


class ApiError(Exception):
    """A request the API server refuses; `status()` is the body of its answer."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}

    def status(self) -> dict[str, Any]:
        """A `Status` object of meta/v1."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details:
            status["details"] = self.details
        return status | {"code": self.code}


def _qualified(plural: str, group: str) -> str:
    return f"{plural}.{group}" if group else plural


def _details(plural: str, group: str, name: str) -> dict[str, Any]:
    return {"name": name, **({"group": group} if group else {}), "kind": plural}


def not_found(plural: str, group: str, name: str) -> ApiError:
    """404 for an object that does not exist."""
    message = f'{_qualified(plural, group)} "{name}" not found'
    return ApiError(404, "NotFound", message, _details(plural, group, name))


def unknown_resource(path: str) -> ApiError:
    """404 for a kind (or path) the server does not serve, such as one whose CRD has not been created."""
    return ApiError(
        404,
        "NotFound",
        f"the server could not find the requested resource ({path})",
        {"causes": [{"reason": "UnexpectedServerResponse", "message": "404 page not found"}]},
    )


def already_exists(plural: str, group: str, name: str) -> ApiError:
    """409 for a create of what exists."""
    message = f'{_qualified(plural, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _details(plural, group, name))


def conflict(plural: str, group: str, name: str, why: str) -> ApiError:
    """409 for a write based on an old version of the object."""
    message = f'Operation cannot be fulfilled on {_qualified(plural, group)} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(plural, group, name))


def apply_conflict(causes: Sequence[Cause]) -> ApiError:
    """409 for a server-side apply of fields that other managers have set to other values."""
    text = "; ".join(f"{cause.message}: {cause.field}" for cause in causes)
    number = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
    details = {"causes": [_cause(cause) for cause in causes]}
    return ApiError(409, "Conflict", f"Apply failed with {number}: {text}", details)


def forbidden(plural: str, group: str, name: str, why: str, causes: Sequence[Cause] = ()) -> ApiError:
    """403 for a write that admission refuses."""
    details = _details(plural, group, name)
    if causes:
        details["causes"] = [_cause(cause) for cause in causes]
    message = f'{_qualified(plural, group)} "{name}" is forbidden: {why}'
    return ApiError(403, "Forbidden", message, details)


def bad_request(message: str) -> ApiError:
    """400 for a body that cannot be read as the kind it says it is."""
    return ApiError(400, "BadRequest", message)


def undecodable(kind: str, version: str, why: str) -> ApiError:
    """400 for a body that does not have the structure of its kind."""
    return bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {why}')


def invalid(kind: str, group: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """422 for an object that breaks rules; all causes in one answer."""
    lines = [cause.line() for cause in causes]
    text = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    details = _details(kind, group, name) | {"causes": [_cause(cause) for cause in causes]}
    return ApiError(422, "Invalid", f'{_qualified(kind, group)} "{name}" is invalid: {text}', details)


def not_implemented(what: str) -> ApiError:
    """501: a real API server does this, the sandbox does not."""
    return ApiError(501, "NotImplemented", f"not implemented in the sandbox: {what}")


def _cause(cause: Cause) -> dict[str, str]:
    return {"reason": cause.reason, "message": cause.message, "field": cause.field}
