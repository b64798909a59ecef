"""Who is speaking: the resource of everything that this process sends."""

from __future__ import annotations

import os
import platform
import sys
import uuid
from typing import Any
from urllib.parse import unquote

from watchkeep import names
from watchkeep.export.model import Resource
from watchkeep.export.sanitise import clean_attributes
from watchkeep.version import __version__

_instance = ""


def resource(environ: dict[str, str] | os._Environ[str] = os.environ) -> Resource:
    """Return the resource: `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME` (which wins), and this process."""
    from importlib.metadata import version

    attributes: dict[str, Any] = {
        names.TELEMETRY_SDK_LANGUAGE: "python",
        names.TELEMETRY_SDK_NAME: "opentelemetry",
        names.TELEMETRY_SDK_VERSION: version("opentelemetry-api"),
        names.TELEMETRY_DISTRO_NAME: "watchkeep",
        names.TELEMETRY_DISTRO_VERSION: __version__,
        names.SERVICE_INSTANCE_ID: instance_id(),
        names.PROCESS_PID: os.getpid(),
        names.PROCESS_RUNTIME_NAME: sys.implementation.name,
        names.PROCESS_RUNTIME_VERSION: platform.python_version(),
    }
    attributes.update(clean_attributes(_from_environment(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))))
    attributes[names.SERVICE_NAME] = (
        environ.get("OTEL_SERVICE_NAME") or attributes.get(names.SERVICE_NAME) or "unknown_service:python"
    )
    return Resource(attributes)


def instance_id() -> str:
    """Return the id of this process, a new one in each process."""
    return _instance or _renew()


_sent: list[Resource] = []  # the pipeline's; a forked child speaks for itself


def follow(made: Resource) -> Resource:
    """Keep a resource true in a forked child: another process id, another instance."""
    _sent[:] = [made]
    return made


def _renew() -> str:
    global _instance
    before, _instance = _instance, str(uuid.uuid4())
    for made in _sent:
        own = dict(made.attributes)
        if own.get(names.SERVICE_INSTANCE_ID) == before:
            own[names.SERVICE_INSTANCE_ID] = _instance
        own[names.PROCESS_PID] = os.getpid()
        made.attributes = own
    return _instance


def _from_environment(text: str) -> dict[str, str]:
    found = {}
    for item in text.split(","):
        key, separator, value = item.partition("=")
        if separator and key.strip():
            found[key.strip()] = unquote(value.strip())
    return found


os.register_at_fork(after_in_child=_renew)
