"""From the name of a task to what reads its files."""

from __future__ import annotations

from charlm.workflows.tasks.language import LanguageMaterial
from charlm.workflows.tasks.material import Material

MATERIALS: dict[str, type[Material]] = {kind.name: kind for kind in (LanguageMaterial,)}
