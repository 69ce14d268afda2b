"""`decontaminate`: rows that hold a benchmark's problems. Each way of looking for them is a layer in a file of its own."""
