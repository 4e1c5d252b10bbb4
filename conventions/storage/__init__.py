"""Storage: the Redis client with its Lua scripts, the SQL database with its tables and migrations."""
