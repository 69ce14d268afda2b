"""mft: from raw instruction data to a measured code model."""

__version__ = "0.1.0"
