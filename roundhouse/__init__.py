"""Roundhouse for Python: what users import. It speaks HTTP to a server and never needs torch."""

__version__ = "0.1.0"

__all__ = ["__version__"]
