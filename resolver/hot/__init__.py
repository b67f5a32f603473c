"""The hot path: worker processes that answer UDP from a table of their own.

The daemon (`supervisor`) binds the sockets, starts the workers, tells them of every change
(`protocol`) and reads what they count (`shared`). A worker (`worker`) keeps a replica of what the
zone is made from (`replica`), remembers answers by the bytes of their questions (`memo`) and moves
them in batches (`mmsg`, `loop`). What it cannot answer goes back to the daemon.
"""
