"""ExaBGP 4 (https://github.com/Exa-Networks/exabgp), fed through a pipe; it learns nothing."""

from __future__ import annotations

import os

from tests.lab.bgp.router import Router, Routes, Seen


class Exabgp(Router):
    """Announces what is written into its pipe, without acknowledgements."""

    program = "exabgp"

    def start(self) -> None:
        """Start it."""
        pipe = self.folder / "pipe"
        if not pipe.exists():
            os.mkfifo(pipe)
        lines = [f"process feed {{ run /bin/cat {pipe}; encoder text; }}"]
        for one in self.neighbors:
            lines += [
                f"neighbor {one.address} {{",
                f"  router-id {self.site.router_id}; local-address {self.site.ipv4};",
                f"  local-as {self.asn}; peer-as {one.asn}; hold-time {one.hold_time};",
                "  family { ipv4 unicast; } api { processes [ feed ]; }",
                "}",
            ]
        (self.folder / "conf").write_text("\n".join([*lines, ""]))
        self.run(
            "env", "exabgp.api.ack=false", "exabgp.daemon.user=root", "exabgp.api.cli=false",
            "exabgp.log.all=false", "exabgp", str(self.folder / "conf"),
        )  # fmt: skip
        # For both: neither end waits for the other, and cat never sees the end of it.
        self._pipe = os.fdopen(os.open(pipe, os.O_RDWR), "w", encoding="ascii")
        if self.announced:
            self._apply(self.announced, {})

    def stop(self) -> None:
        """End it."""
        super().stop()
        self._pipe.close()

    def session(self, peer: str) -> str:
        """It does not say."""
        raise NotImplementedError

    def count(self, peer: str, version: int = 4) -> int:
        """It keeps none."""
        return 0

    def routes(self, peer: str, version: int = 4) -> dict[str, Seen]:
        """It keeps none."""
        return {}

    def _apply(self, added: Routes, removed: Routes) -> None:
        lines = [f"announce route {one} next-hop self\n" for one in added]
        lines += [f"withdraw route {one} next-hop self\n" for one in removed]
        self._pipe.write("".join(lines))
        self._pipe.flush()
