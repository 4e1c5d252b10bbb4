"""Where things are kept: the Redis client with its scripts, the SQL database with its tables and migrations."""
