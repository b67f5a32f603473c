"""Resolver: what the Catalog holds becomes DNS answers."""
