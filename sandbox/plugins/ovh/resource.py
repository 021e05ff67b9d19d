"""What all resource types of the provider have in common."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import quote

from sandbox.plugins.bridge import BridgedResource, ResourceData, wait_for_state
from sandbox.plugins.framework import PluginError
from sandbox.plugins.ovh.client import ApiError, OvhClient
from sandbox.plugins.schema import Field

SERVICE_VARIABLE: Final = "OVH_CLOUD_PROJECT_SERVICE"


def escape(part: str) -> str:
    """A part of a path."""
    return quote(part, safe="")


def without_unset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without empty values, which Go leaves out of JSON (`omitempty` of nil pointers and empty strings)."""
    return {key: value for key, value in values.items() if value is not None and value != ""}


class Session(Protocol):
    """What resources need of the plugin."""

    @property
    def api(self) -> OvhClient:
        """The configured client."""
        ...

    def pause(self) -> None:
        """Waits one poll interval; raises when the engine asked to stop."""
        ...


class OvhResource(BridgedResource):
    """A resource type with what all of them do with the API."""

    def __init__(self, plugin: Session) -> None:
        self._plugin = plugin

    @property
    def _api(self) -> OvhClient:
        return self._plugin.api

    def _found(self, data: ResourceData, path: str) -> Any:
        """GET of the resource; when it is gone, clears the id and returns None."""
        try:
            return self._api.get(path)
        except ApiError as error:
            if error.status == 404:
                data.id = ""
                return None
            raise PluginError(f"calling {path}:\n\t {error} Query ID : {error.query_id}") from error
        except PluginError as error:
            raise PluginError(f"calling {path}:\n\t {error}") from error

    def _removed(self, path: str) -> bool:
        """DELETE of the resource; False when it was gone already."""
        try:
            self._api.delete(path)
        except ApiError as error:
            if error.status == 404:
                return False
            raise PluginError(f"calling {path}:\n\t {error} Query ID : {error.query_id}") from error
        return True

    def _wait_available(self, path: str, timeout: float) -> None:
        """Waits until a new resource is no longer answered with 404."""
        end = time.monotonic() + timeout
        while True:
            try:
                self._api.get(path)
            except ApiError as error:
                if error.status != 404 or time.monotonic() >= end:
                    raise
                self._plugin.pause()
            else:
                return

    def _wait(self, path: str, pending: Sequence[str], target: Sequence[str], timeout: float) -> None:
        """Waits for the resource's `status`; one that is gone has status `DELETED` if that is waited for."""

        def status() -> str:
            try:
                return str(self._api.get(path)["status"])
            except ApiError as error:
                gone = next((name for name in target if name.upper() == "DELETED"), None)
                if error.status == 404 and gone is not None:
                    return gone
                raise

        wait_for_state(status, pending, target, timeout, self._plugin.pause)


SERVICE_NAME: Final = Field("string", required=True, force_new=True, env=SERVICE_VARIABLE)
KUBE_ID: Final = Field("string", required=True, force_new=True)
TEXT: Final = Field("string")
OUTPUT_TEXT: Final = Field("string", computed=True)
OUTPUT_INT: Final = Field("int", computed=True)
OUTPUT_BOOL: Final = Field("bool", computed=True)
FREE_TEXT: Final = Field("string", optional=True, computed=True)
FREE_INT: Final = Field("int", optional=True, computed=True)
FREE_BOOL: Final = Field("bool", optional=True, computed=True)
