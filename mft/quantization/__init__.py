"""After the merge: 2- to 8-bit weights as a matrix of jobs, their sizes beforehand, their quality afterwards."""
