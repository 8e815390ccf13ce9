"""Its place lets tests in folders below import the helpers beside it."""
