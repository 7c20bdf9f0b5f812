"""A builder and a registry for one site's flows."""
