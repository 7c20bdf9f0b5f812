"""What builds, checks and releases the packages of this repository. Nothing here is shipped."""
