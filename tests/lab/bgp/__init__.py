"""Real BGP speakers in namespaces, and what discod is to them."""
