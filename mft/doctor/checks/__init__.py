"""The checks, one subject a file. None imports torch: what needs it runs in a process of its own (mft/doctor/probes/)."""
