"""A build in shards: the same function over pieces of the sources, in one process, in several, or on a Ray cluster."""
