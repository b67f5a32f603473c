"""Announcer: what Docker runs here becomes records in the store."""
