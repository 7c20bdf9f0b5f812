"""Container runs of an image, on this machine."""
