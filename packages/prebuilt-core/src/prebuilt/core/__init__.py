"""Contracts, values, layer planning and the bake of metaflow-prebuilt. Standard library only."""
