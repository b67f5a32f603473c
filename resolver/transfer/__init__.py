"""Zone transfer: the domain for an organisation's own name servers, as secondaries."""
