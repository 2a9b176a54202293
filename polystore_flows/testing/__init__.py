"""What is used to test this package, for others to test theirs."""
