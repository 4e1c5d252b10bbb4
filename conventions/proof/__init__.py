"""Whether the audit is whole (R22): its rows are numbered and chained, so that a change, a gap and a cut are found."""
