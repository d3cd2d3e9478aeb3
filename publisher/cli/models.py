"""``modelwire models``."""

import logging

import click

from adapters.layout import show
from adapters.logs import configure_logs
from publisher import models as found_models
from publisher import screens
from publisher.cli.options import asking, settings_of


@click.command()
@asking
def models(bootstrap_servers: str | None, output: str) -> None:
    """List the cluster's models: phase, champion, candidate, and the last change.

    A model is a control topic of the form that the setting topics.control gives. One that cannot be
    read is a row that says why.
    """
    settings = settings_of(bootstrap_servers)
    configure_logs(as_json=False, level=logging.ERROR)  # what is wrong with a model is in its row
    found = found_models.find_models(settings)
    show(output, screens.models_view(found), screens.models_object(found))
