"""``modelwire topics``, ``release`` and ``rollout``."""
