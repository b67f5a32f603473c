"""Names of others: asked of upstreams, kept for their TTL, answered from what is kept."""
