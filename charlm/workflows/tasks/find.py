"""From the name of a task to what reads its files."""

from __future__ import annotations

from charlm.workflows.tasks.classify import ClassifyMaterial
from charlm.workflows.tasks.language import LanguageMaterial
from charlm.workflows.tasks.material import Material
from charlm.workflows.tasks.tag import TagMaterial
from charlm.workflows.tasks.transduce import TransduceMaterial

_KINDS: tuple[type[Material], ...] = (LanguageMaterial, ClassifyMaterial, TagMaterial, TransduceMaterial)
MATERIALS = {kind.name: kind for kind in _KINDS}
