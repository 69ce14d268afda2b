"""Starting a train stage on many nodes: torchrun's agents, DeepSpeed's launcher, Slurm."""
