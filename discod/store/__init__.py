"""The key-value store: its interface, and the two that implement it."""
