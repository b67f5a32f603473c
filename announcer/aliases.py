"""The aliases that this host announces: ``announce.aliases``.

Rule: an alias stands for as long as its host lives and is configured to announce it; it has no
health and is not drained, since what it leads to has both of its own. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from discod.model.endpoint import Alias
from discod.model.names import instance_label


def aliases_of(
    named: Iterable[tuple[str, str]], *, host: str, domain: str, since: Callable[[str], float]
) -> tuple[Alias, ...]:
    """The aliases of one host.

    Args:
        named: (service, target) pairs; a target without a dot is a service of the domain.
        host: This host's name.
        domain: Of all services.
        since: From a text that names one alias to when it was first offered, Unix seconds.
    """
    # Ports of endpoints are not 0, so an alias and an endpoint never have one label.
    instance = instance_label(host, "alias", 0, protocol="tcp", family=4)
    return tuple(
        Alias(
            service=service,
            instance=instance,
            target=target if "." in target else f"{target}.{domain}",
            host=host,
            since=since(f"alias:{service}:{target}"),
        )
        for service, target in named
    )
