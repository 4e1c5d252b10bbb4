"""One effect for each key: claims with leases, and effects that are committed with their record (R4, R12)."""
