"""The native BGP speaker against real speakers, in network namespaces."""
