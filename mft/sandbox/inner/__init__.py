"""What runs inside the jail: imports nothing but the standard library and itself, as it is bound there without the rest of mft."""
