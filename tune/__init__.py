"""Sweeps over architectures and stage thresholds, on one machine or a Ray cluster."""
