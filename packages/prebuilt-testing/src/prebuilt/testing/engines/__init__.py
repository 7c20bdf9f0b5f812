"""Real engines that tests start for themselves: registries, Docker, BuildKit."""
