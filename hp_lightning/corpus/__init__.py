"""From what `data.path` names to documents, and from documents to a training, a validation and a test part."""

from hp_lightning.corpus.documents import Document, Reading, characters, read_documents
from hp_lightning.corpus.downloads import cache_folder
from hp_lightning.corpus.inspection import CorpusFacts, PartFacts, inspect
from hp_lightning.corpus.sources import Source, absolute_path, check_local_sources, content_digest, find_sources
from hp_lightning.corpus.splitting import Splits, split_documents

__all__ = [
    "CorpusFacts",
    "Document",
    "PartFacts",
    "Reading",
    "Source",
    "Splits",
    "absolute_path",
    "cache_folder",
    "characters",
    "check_local_sources",
    "content_digest",
    "find_sources",
    "inspect",
    "read_documents",
    "split_documents",
]
