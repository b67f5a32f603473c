"""The name of a service that nobody named.

Rule: Compose's service name, else Registrator's default, the last part of the image's name. A
default is mended into a label; it is never a fault. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from discod.model.names import LABEL_MAX, to_label

COMPOSE_SERVICE = "com.docker.compose.service"


def default_name(image: str, labels: Mapping[str, str], suffix: str) -> str:
    """The default name; empty when there is none.

    Args:
        image: As the container names it, e.g. ``registry:5000/team/web:1.2@sha256:...``.
        labels: The container's.
        suffix: What follows the image's name where the container offers several ports, e.g.
            ``-80``. Ports of a Compose service stay together under its one name.
    """
    compose = to_label(labels.get(COMPOSE_SERVICE, ""))
    if compose:
        return compose
    base = image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    if image.startswith("sha256:"):
        return ""  # an id: it names nothing, and changes with every build
    name = to_label(base)[: LABEL_MAX - len(suffix)].rstrip("-")
    return f"{name}{suffix}" if name else ""
