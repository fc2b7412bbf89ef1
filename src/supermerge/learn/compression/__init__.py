"""Task vectors that stay in memory in fewer bits than they are stored in: rounded, or quantised (TVQ, RTVQ)."""

from supermerge.learn.compression.experts import Coding, Compressed, bits_per_number, compress, is_coding

__all__ = ["Coding", "Compressed", "bits_per_number", "compress", "is_coding"]
