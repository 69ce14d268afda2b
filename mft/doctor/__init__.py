"""`mft doctor`: what this machine, this installation and a config need to work together, checked by trying it."""
