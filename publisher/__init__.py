"""The publisher: gives commands to a model's control log, and shows what it says.

``cli`` is the command line; ``releases``, ``launches`` and ``rollouts`` are what it does, and ``fleets``
waits for the fleet where they must; ``commands`` puts a command into the log. ``status`` and ``models``
look at log and fleet, ``moments`` at the past; ``naming`` reads the names that people type; ``screens``
makes what they see. Whether a command is allowed is decided in ``deployment.decisions``, what a plan
does next in ``deployment.controller``, which ``controller`` runs.
"""
