"""OpenStack users of a project."""

from __future__ import annotations

import os
import re
from typing import Any, ClassVar, Final

from sandbox.plugins.bridge import ResourceData
from sandbox.plugins.framework import PluginError
from sandbox.plugins.ovh.resource import (
    OUTPUT_TEXT,
    SERVICE_NAME,
    SERVICE_VARIABLE,
    TEXT,
    OvhResource,
    escape,
    without_unset,
)
from sandbox.plugins.schema import Field, Schema, State

_USER_TIMEOUT_S: Final = 600.0
_OPENRC: Final = {
    "OS_AUTH_URL": re.compile(r'export OS_AUTH_URL="??(\S+)"??'),
    "OS_TENANT_NAME": re.compile(r'export OS_TENANT_NAME="?([A-Za-z0-9]+)"?'),
    "OS_TENANT_ID": re.compile(r'export OS_TENANT_ID="??([A-Za-z0-9]+)"??'),
    # As the real provider's: it ends at the first "-", so that "user-abc" shows up as "user".
    "OS_USERNAME": re.compile(r'export OS_USERNAME="?([A-Za-z0-9]+)"?'),
}


class User(OvhResource):
    """`ovh:CloudProject/user:User`, an OpenStack user of the project."""

    schema: ClassVar[Schema] = {
        "serviceName": SERVICE_NAME,
        "description": Field("string", force_new=True),
        "roleName": TEXT,
        "roleNames": Field("list"),
        "passwordReset": TEXT,
        "openstackRc": Field("map", optional=True, computed=True),
        "creationDate": OUTPUT_TEXT,
        "password": Field("string", computed=True, secret=True),
        "roles": Field(
            "list",
            computed=True,
            elements="object",
            fields={
                "description": OUTPUT_TEXT,
                "id": OUTPUT_TEXT,
                "name": OUTPUT_TEXT,
                "permissions": Field("set", computed=True),
            },
        ),
        "status": OUTPUT_TEXT,
        "username": OUTPUT_TEXT,
    }

    def create(self, data: ResourceData) -> None:
        """Checks the role names, creates the user, waits until it is ok; the password comes only here."""
        self._roles(data)
        path = f"/cloud/project/{escape(data.get('serviceName'))}/user"
        roles = data.get("roleNames") or []
        body = without_unset(
            {"description": data.get("description"), "role": data.get("roleName"), "roles": roles}
        )
        given = (
            f"description:{data.get('description')}, role:{data.get('roleName')}, roles:[{' '.join(roles)}]"
        )
        params = f"CloudProjectUserCreateOpts[{given}]"
        try:
            user = self._api.post(path, body)
        except PluginError as error:
            raise PluginError(f"calling Post {path} with params {params}:\n\t {error}") from error
        data.set({"password": user["password"]})
        data.id = str(user["id"])
        try:
            self._wait(f"{path}/{data.id}", ("creating",), ("ok",), _USER_TIMEOUT_S)
        except PluginError as error:
            raise PluginError(f"waiting for user ({params}): {error}") from error
        self.read(data)

    def read(self, data: ResourceData) -> None:
        """Reads the user and what its openrc file says."""
        path = self._path(data)
        user = self._found(data, path)
        if user is None:
            return
        data.id = str(user["id"])
        data.set({key: user.get(key) or "" for key in ("creationDate", "description", "status", "username")})
        keys = ("description", "id", "name", "permissions")
        data.set({"roles": [{key: role.get(key) for key in keys} for role in user.get("roles") or []]})
        data.set({"openstackRc": self._openrc(path, data.id)})

    def update(self, data: ResourceData) -> None:
        """Makes a new password or sets the roles."""
        path = self._path(data)
        if data.changed("passwordReset"):
            data.set({"password": self._api.post(f"{path}/regeneratePassword")["password"]})
            self._wait(path, ("creating", "deleted", "deleting"), ("ok",), 300)
        if data.changed("roleName", "roleNames"):
            wanted = {*(data.get("roleNames") or []), data.get("roleName")}
            ids = [role["id"] for role in self._roles(data) if role["name"] in wanted]
            self._api.put(f"{path}/role", {"rolesIds": ids})
        self.read(data)

    def delete(self, data: ResourceData) -> None:
        """Deletes the user and waits until it is gone."""
        path = self._path(data)
        try:
            self._api.delete(path)
        except PluginError as error:
            raise PluginError(f"calling Delete {path}:\n\t {error}") from error
        try:
            self._wait(path, ("deleting",), ("deleted",), _USER_TIMEOUT_S)
        except PluginError as error:
            text = f"Deleting Public Cloud user {data.id} from project {data.get('serviceName')}: {error}"
            raise PluginError(text) from error

    def import_state(self, id: str) -> tuple[str, State]:
        """Takes `<project>/<user>`, or `<user>` of the project in OVH_CLOUD_PROJECT_SERVICE."""
        service, slash, user = id.partition("/")
        if not slash:
            service, user = os.environ.get(SERVICE_VARIABLE, ""), id
        if not service or not user:
            raise PluginError("Import Id is not service_name/id formatted")
        return user, {"serviceName": service}

    def _path(self, data: ResourceData) -> str:
        return f"/cloud/project/{escape(data.get('serviceName'))}/user/{data.id}"

    def _roles(self, data: ResourceData) -> list[dict[str, Any]]:
        """Roles that the API offers; raises if one that the user is to have is not among them."""
        path = f"/cloud/project/{escape(data.get('serviceName'))}/role"
        try:
            offered: list[dict[str, Any]] = self._api.get(path)["roles"]
        except PluginError as error:
            raise PluginError(f"calling Get {path}: {error}") from error
        names = [role["name"] for role in offered]
        for name in [*(data.get("roleNames") or []), data.get("roleName")]:
            if name and name not in names:
                raise PluginError(f'role "{name}" does not exist')
        return offered

    def _openrc(self, path: str, id: str) -> dict[str, str]:
        # "overriden" is how the real provider spells it.
        content = self._api.get(f"{path}/openrc?region=to_be_overriden")["content"]
        values = {}
        for name, pattern in _OPENRC.items():
            match = pattern.search(content)
            if match is None:
                raise PluginError(
                    f"Reading openstack creds for user {id}: couln't extract {name} from content: "
                    f"\n\t{content}"
                )
            values[name] = match[1]
        return values
