"""Names of checkpoints: those that `base.source` knows, and ids of the Hugging Face hub."""

import re

from stages.difix.config import RANDOM, SHIPPED, TRAINED

# A repository of the hub, with an optional branch, tag or commit.
HUB_ID = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?", re.ASCII)
PUBLISHED = ("nvidia/difix_ref", "nvidia/difix", "stabilityai/sd-turbo")
KNOWN = [SHIPPED, TRAINED, RANDOM, *PUBLISHED]
