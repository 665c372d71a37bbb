"""Frozen features on disk: computed once, read by every epoch, run and process."""

from crane.cache.code import code_digest
from crane.cache.digests import Digests
from crane.cache.entry import BrokenEntryError, Description, Entry
from crane.cache.facts import entry_id, images_digest, tower_facts
from crane.cache.folder import CacheFolder, age_text, size_text
from crane.cache.reading import Features
from crane.cache.writing import DTYPES, EntryWriter, TokenShape, allocate, finish, is_allocated

__all__ = [
    "DTYPES",
    "BrokenEntryError",
    "CacheFolder",
    "Description",
    "Digests",
    "Entry",
    "EntryWriter",
    "Features",
    "TokenShape",
    "age_text",
    "allocate",
    "code_digest",
    "entry_id",
    "finish",
    "images_digest",
    "is_allocated",
    "size_text",
    "tower_facts",
]
