"""The demo: a model is trained, released, replaced under load and undone, on real servers.

``cli`` starts the stack and stops what was started, ``script`` is the story, ``commands`` runs the
``modelwire`` commands that a person would type, ``follower`` watches the answers, ``view`` shows it.
The verdict is not the demo's own: it comes from ``modelwire.checker``.
"""

from modelwire.demo.cli import demo

__all__ = ["demo"]
