"""discod: service discovery for Docker hosts, announced by the producers."""

__version__ = "0.1.0"
