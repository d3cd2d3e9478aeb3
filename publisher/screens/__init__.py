"""What people and programs see of models, releases and rollouts: sentences, tables, JSON objects.

Every object is a contract with scripts: keys are added, never renamed. ``events`` has the history and
what a command did, ``releases`` the versions, ``status`` (with ``steps`` and ``instances``) the rollout
and its fleet, ``objects`` the same for programs, ``models`` the list of all models. How values look is in
``adapters.layout``, and how an event reads in ``deployment.words``.
"""

from publisher.screens.events import (
    appended_line,
    appended_object,
    history_object,
    history_table,
)
from publisher.screens.models import models_object, models_view
from publisher.screens.objects import status_object
from publisher.screens.releases import (
    releases_object,
    releases_table,
    version_object,
    version_table,
)
from publisher.screens.status import status_line, status_view

__all__ = [
    "appended_line",
    "appended_object",
    "history_object",
    "history_table",
    "models_object",
    "models_view",
    "releases_object",
    "releases_table",
    "status_line",
    "status_object",
    "status_view",
    "version_object",
    "version_table",
]
