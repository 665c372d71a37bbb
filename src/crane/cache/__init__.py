"""Frozen features on disk: computed once, read by every epoch, run and process.

`crane.cache.arrays` reads and writes the features themselves; it imports torch, which listing and
removing entries does not need.
"""

from crane.cache.cache_folder import CacheFolder, age_text
from crane.cache.entry import BrokenEntryError, Description, Entry
from crane.cache.keys import Digests, code_digest, entry_id, images_digest, tower_facts
