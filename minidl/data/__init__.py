"""Data sets: ``Dataset``, readers for files, and generated letters that need no file."""

from minidl.data.cache import mapped
from minidl.data.letters import load_letters
from minidl.data.readers import load_dataset, read_idx
from minidl.dataset import Dataset, Split

__all__ = ["Dataset", "Split", "load_dataset", "load_letters", "mapped", "read_idx"]
