"""Data sets: ``Dataset``, readers for files, and generated letters that need no file."""

from minidl.data.cache import load_letters
from minidl.data.dataset import Dataset, Split
from minidl.data.readers import load_dataset, read_idx

__all__ = ["Dataset", "Split", "load_dataset", "load_letters", "read_idx"]
