"""Contracts, values, layer planning and the bake of metaflow-prebuilt. Standard library only.

Names are imported from their modules (``from prebuilt.core.lock import Lock``), so that importing one costs one.
"""
