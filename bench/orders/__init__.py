"""`python -m bench.orders`: what a send in the caller's transaction costs, beside one after the commit, and a queue in PostgreSQL."""
