"""From files of rows, of several kinds and packings, to conversations; what cannot be used is counted with its place."""
