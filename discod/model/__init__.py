"""Values that everything shares. A leaf: imports nothing of discod outside itself, and is pure."""
