"""Rescue's packet filter tables on a real kernel, in namespaces of its own."""
