"""What the rules need from outside: Redis, the document store."""
