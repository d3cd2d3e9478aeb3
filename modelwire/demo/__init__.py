"""The demo: a model is trained, released, shadowed, rolled out under load and undone, on real servers.

``cli`` starts the stack and stops what was started, ``script`` is the story, ``commands`` runs the
``modelwire`` commands that a person would type, ``stream`` is the load that they run under, ``follower``
reads the answers and ``answers`` counts them, ``view`` shows it live, ``figures`` are what comes out.
The verdict is not the demo's own: it comes from ``modelwire.checker``.
"""

from modelwire.demo.cli import demo

__all__ = ["demo"]
