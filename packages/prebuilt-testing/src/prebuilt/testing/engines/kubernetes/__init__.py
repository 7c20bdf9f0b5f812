"""A real Kubernetes of one node, made of Debian's packages and Go modules."""
