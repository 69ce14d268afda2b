"""Steps that find rows which say the same: exactly, or nearly."""
