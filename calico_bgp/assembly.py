"""Puts the parts of BGP together, as settings ask for them.

Rule: constructs and joins, decides nothing else.
"""

from __future__ import annotations

import random
from pathlib import Path

from calico_bgp.exported import Exported
from calico_bgp.forwarding import KernelForwarding
from calico_bgp.host import HostSide
from calico_bgp.parts import Build, Parts
from calico_bgp.speaker import NativeSpeaker
from discod.model.bgp_settings import BgpSettings
from discod.model.endpoint import Host


def assembly(state: Path, rng: random.Random) -> Build:
    """What makes the parts.

    Args:
        state: The directory for what has to be known after a restart.
        rng: For jitter.
    """

    def build(settings: BgpSettings, host: Host) -> Parts:
        side = (HostSide(settings, state, rng=rng),) if settings.host else ()
        if settings.backend == "kernel":
            return Parts(None, None, (*side, Exported(settings, rng=rng)))
        kernel = KernelForwarding(settings, rng=rng) if settings.install else None
        speaker = NativeSpeaker(
            settings,
            host.name,
            host.addresses,
            learned=kernel.learned if kernel is not None else lambda _: None,
            settled=kernel.settled if kernel is not None else lambda: None,
            installed=kernel.installed if kernel is not None else lambda _: False,
            rng=rng,
        )
        return Parts(speaker, kernel, side)

    return build
