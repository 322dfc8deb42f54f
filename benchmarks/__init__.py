"""The project's own benchmark; see `convt.bench` for what it does."""
