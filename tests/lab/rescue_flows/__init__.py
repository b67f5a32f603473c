"""Flows of dead places against a real kernel, in namespaces."""
