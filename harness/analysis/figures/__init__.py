"""The figures of the report, one class each."""
