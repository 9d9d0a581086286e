"""securead: train one anomaly detector privately among institutions, score records nobody else can see."""

__version__ = "0.1.0"
