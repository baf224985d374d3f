"""The version, in a file that nothing else depends on."""

__version__ = "0.2.0"
