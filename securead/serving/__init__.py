"""The scoring service: holds the secret half of models, scores what it cannot read."""

from securead.serving.process import RunningService, serve

__all__ = ["RunningService", "serve"]
